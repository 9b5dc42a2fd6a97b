//! The types that a setting can have. Each refuses what it can't be in words that end a sentence about the setting.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::{Host, Url};

/// A whole number within bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BoundedInteger<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> BoundedInteger<MIN, MAX> {
    /// A default.
    pub(super) const fn new(number: u64) -> Self {
        assert!(MIN <= number && number <= MAX, "a default is within its bounds");
        Self(number)
    }

    /// The number.
    #[must_use]
    pub fn get<T: TryFrom<u64>>(self) -> T
    where
        T::Error: fmt::Debug,
    {
        T::try_from(self.0).expect("the bounds of a setting fit the type that it is used as")
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for BoundedInteger<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> de::Visitor<'_> for Visitor<MIN, MAX> {
            type Value = BoundedInteger<MIN, MAX>;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(to, "a whole number from {MIN} to {MAX}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                if (MIN..=MAX).contains(&number) {
                    Ok(BoundedInteger(number))
                } else {
                    Err(E::invalid_value(de::Unexpected::Unsigned(number), &self))
                }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// Text that must not be shown: it prints as `(hidden)`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Whoever calls this sees to it that it goes nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("(hidden)")
    }
}

/// A database's address. It may hold a password, which is not printed.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub(super) fn sqlite(file: &str) -> Self {
        Self(format!("sqlite://{file}"))
    }

    /// The address with its password. Whoever calls this sees to it that it goes nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The names of the address's parameters that the driver would pass over.
    #[must_use]
    pub fn ignored_parameters(&self) -> Vec<String> {
        const KNOWN: &[&str] = &[
            "sslmode",
            "ssl-mode",
            "sslrootcert",
            "ssl-root-cert",
            "ssl-ca",
            "sslcert",
            "ssl-cert",
            "sslkey",
            "ssl-key",
            "statement-cache-capacity",
            "host",
            "hostaddr",
            "port",
            "dbname",
            "user",
            "password",
            "application_name",
            "options",
        ];
        let Ok(url) = Url::parse(&self.0) else { return Vec::new() };
        let names = url.query_pairs().map(|(name, _)| name.into_owned());
        // SQLite's driver refuses what it does not know.
        names.filter(|name| !self.is_sqlite() && !KNOWN.contains(&&**name) && !name.starts_with("options[")).collect()
    }

    /// Whether this is a SQLite file rather than a PostgreSQL server.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }

    fn hidden(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else { return "(hidden)".to_owned() };
        if url.password().is_some() {
            // It fails for an address without a host only, and that has no password.
            let _ = url.set_password(Some("hidden"));
        }
        if url.query().is_some() {
            let shown: Vec<(String, String)> = url
                .query_pairs()
                .map(|(name, value)| {
                    let value = if name.contains("password") { "hidden".into() } else { value };
                    (name.into_owned(), value.into_owned())
                })
                .collect();
            url.query_pairs_mut().clear().extend_pairs(shown);
        }
        url.into()
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.hidden())
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.hidden())
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Url::parse(&text) {
            Ok(url) if url.scheme() == "sqlite" && url.query().is_some_and(|query| query.contains("mode=memory")) => {
                Err(de::Error::custom("write `sqlite::memory:` for a database that is kept in memory only"))
            }
            Ok(url) if ["sqlite", "postgres", "postgresql"].contains(&url.scheme()) => Ok(Self(text)),
            Ok(url) if url.scheme().contains('+') => {
                Err(de::Error::custom("leave out the driver: write `postgresql://…`, not `postgresql+driver://…`"))
            }
            _ => Err(de::Error::custom(
                "expected `sqlite://path/to/file.db` or `postgres://user:password@host/name`, with every special \
                 character of the password written as %XX",
            )),
        }
    }
}

/// The origin of a web page, as a browser sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Origin(String);

impl Origin {
    pub(super) fn http_localhost(port: u16) -> Self {
        Self(format!("http://localhost:{port}"))
    }

    /// The origin, as a browser sends it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Url::parse(&text) {
            // What a browser sends is the canonical form: anything else would never match.
            Ok(url) if url.origin().is_tuple() && url.origin().ascii_serialization() == text => Ok(Self(text)),
            Ok(url) if url.origin().is_tuple() => {
                Err(de::Error::custom(format!("write the origin as `{}`", url.origin().ascii_serialization())))
            }
            _ => Err(de::Error::custom("expected an origin such as `https://app.example.com`")),
        }
    }
}

/// Where an issuer publishes its keys.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct JwksUrl(String);

impl JwksUrl {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether somebody on the way could put other keys in the place of the issuer's.
    #[must_use]
    pub fn is_open_to_others(&self) -> bool {
        let is_near = |url: &Url| match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        Url::parse(&self.0).is_ok_and(|url| url.scheme() == "http" && !is_near(&url))
    }
}

impl<'de> Deserialize<'de> for JwksUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Url::parse(&text) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Err(de::Error::custom("expected an address without a user name and a password"))
            }
            Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(Self(text)),
            _ => Err(de::Error::custom("expected an address such as `https://app.example.com/api/auth/jwks`")),
        }
    }
}
