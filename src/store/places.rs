//! On which machine an owner's rows are, where an engine spreads them (Citus).
//!
//! A machine that hangs keeps each statement for its owners waiting until the session gives up. The queue sees to it that these hold
//! no more than a part of the lanes, so that the other owners have the rest; for that it has to know who is where before it asks.

use sqlx::PgConnection;

/// The machines, by the last hash of each shard, in order. None where there are fewer than two.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<(i32, i32)>);

impl Places {
    pub(super) fn new(mut shards: Vec<(i32, i32)>) -> Self {
        shards.sort_unstable();
        let is_spread = shards.iter().any(|(_, machine)| *machine != shards[0].1);
        Self(if is_spread { shards } else { Vec::new() })
    }

    /// Asks the database. There are none in one that is no Citus, or has not been told to spread the users.
    pub(super) async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let is_citus: bool = sqlx::query_scalar("select to_regclass('pg_dist_shard') is not null")
            .persistent(false)
            .fetch_one(&mut *connection)
            .await?;
        if !is_citus {
            return Ok(Self::default());
        }
        let ask = "select s.shardmaxvalue::int4, p.groupid from pg_dist_shard s join pg_dist_placement p using (shardid) \
                   where s.logicalrelid = to_regclass('users') and s.shardmaxvalue is not null";
        Ok(Self::new(sqlx::query_as(ask).persistent(false).fetch_all(connection).await?))
    }

    /// The machine that has this owner.
    pub(super) fn of(&self, owner: &str) -> Option<i32> {
        let last = self.0.last()?;
        let hash = hash(owner.as_bytes());
        let at = self.0.partition_point(|(last, _)| *last < hash);
        Some(self.0.get(at).unwrap_or(last).1)
    }
}

/// Which word of Jenkins's lookup3 a step changes, by which one, which it raises then by which, and how far it rotates.
const MIX: [(usize, usize, usize, u32); 6] =
    [(0, 2, 1, 4), (1, 0, 2, 6), (2, 1, 0, 8), (0, 2, 1, 16), (1, 0, 2, 19), (2, 1, 0, 4)];
const LAST_MIX: [(usize, usize, u32); 7] =
    [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)];

/// PostgreSQL's `hashtext`, by which Citus finds the shard. It can't change: indexes and shards rest on it.
fn hash(bytes: &[u8]) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "a user's id is short")]
    let start = 0x9e37_79b9_u32.wrapping_add(bytes.len() as u32).wrapping_add(3_923_095);
    let mut words = [start; 3];
    let chunks = bytes.chunks_exact(12);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (n, byte) in chunk.iter().enumerate() {
            words[n / 4] = words[n / 4].wrapping_add(u32::from(*byte) << (n % 4 * 8));
        }
        for (to, from, raised_by, left) in MIX {
            words[to] = words[to].wrapping_sub(words[from]) ^ words[from].rotate_left(left);
            words[from] = words[from].wrapping_add(words[raised_by]);
        }
    }
    for (n, byte) in rest.iter().enumerate() {
        // The lowest byte of the last word is left out: the length is in it already.
        let place = if n < 8 { n } else { n + 1 };
        words[place / 4] = words[place / 4].wrapping_add(u32::from(*byte) << (place % 4 * 8));
    }
    for (to, from, left) in LAST_MIX {
        words[to] = (words[to] ^ words[from]).wrapping_sub(words[from].rotate_left(left));
    }
    words[2].cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `select hashtext('…')` gives them.
    const KNOWN: [(&str, i32); 12] = [
        ("", -1_477_818_771),
        ("a", 1_075_015_857),
        ("ann", -613_284_358),
        ("user", -1_496_687_293),
        ("user-1", -558_825_088),
        ("user-123", 1_469_898_091),
        ("user-1234", -1_914_499_889),
        ("12345678901", 1_650_060_602),
        ("123456789012", -2_102_057_603),
        ("1234567890123", 437_480_032),
        ("Grüße aus Köln, 世界", -1_294_072_274),
        ("0193a5b4-7d1e-7c3a-9f00-1b2c3d4e5f60", 687_374_098),
    ];

    #[test]
    fn owners_are_hashed_as_postgresql_hashes_them() {
        for (text, expected) in KNOWN {
            assert_eq!(hash(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn an_owner_is_where_the_shard_is() {
        let places = Places::new(vec![(i32::MAX, 7), (-1, 5)]);
        for (text, hash) in KNOWN {
            assert_eq!(places.of(text), Some(if hash < 0 { 5 } else { 7 }), "{text:?}");
        }
        // There is nothing to share on a single machine.
        assert_eq!(Places::new(vec![(i32::MAX, 7), (-1, 7)]).of("ann"), None);
        assert_eq!(Places::new(Vec::new()).of("ann"), None);
    }
}
