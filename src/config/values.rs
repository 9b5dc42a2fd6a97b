//! The types that a setting can have. Each refuses what it can't be in words that end a sentence about the setting.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
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

/// The parameters of an address that the driver of PostgreSQL knows.
const PARAMETERS: [&str; 18] = [
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
/// Those that SQLite's driver knows.
const SQLITE_PARAMETERS: [&str; 4] = ["mode", "cache", "immutable", "vfs"];

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

    /// The address of the file beside that of this SQLite database whose name ends in `suffix` as well.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> Self {
        match self.0.split_once('?') {
            Some((file, parameters)) => Self(format!("{file}{suffix}?{parameters}")),
            None => Self(format!("{}{suffix}", self.0)),
        }
    }

    /// The names of the address's parameters that the driver would pass over.
    #[must_use]
    pub fn ignored_parameters(&self) -> Vec<String> {
        let Ok(url) = Url::parse(&self.0) else { return Vec::new() };
        let names = url.query_pairs().map(|(name, _)| name.into_owned());
        // SQLite's driver refuses what it does not know.
        names
            .filter(|name| !self.is_sqlite() && !PARAMETERS.contains(&&**name) && !name.starts_with("options["))
            .collect()
    }

    /// Whether this is a SQLite file rather than a PostgreSQL server.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }

    fn hidden(&self) -> String {
        // What is no address may have its password anywhere.
        let Some(mut url) = Url::parse(&self.0).ok().filter(|url| self.is_sqlite() || !url.cannot_be_a_base()) else {
            return "(hidden)".to_owned();
        };
        if url.password().is_some() {
            // It fails for an address without a host only, and that has no password.
            let _ = url.set_password(Some("hidden"));
        }
        if url.query().is_some() {
            let is_shown =
                |name: &str| name != "password" && (PARAMETERS.contains(&name) || SQLITE_PARAMETERS.contains(&name));
            let shown = |(name, value): (Cow<'_, str>, Cow<'_, str>)| {
                let value = if is_shown(&name) { value } else { "hidden".into() };
                (name.into_owned(), value.into_owned())
            };
            let shown: Vec<_> = url.query_pairs().map(shown).collect();
            url.query_pairs_mut().clear().extend_pairs(shown);
        }
        url.into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected `sqlite://path/to/file.db` or `postgres://user:password@host/name`, with every special \
                        character of the password written as %XX";
        let url = Url::parse(text).map_err(|_| expected.to_owned())?;
        match url.scheme() {
            "sqlite" if text.contains(":memory:") || url.query().is_some_and(|query| query.contains("mode=memory")) => Err(
                "a database in memory only is not offered: everything in it would be gone with the process. For tests, a \
                 file in /dev/shm is as fast"
                    .to_owned(),
            ),
            "sqlite" => {
                // As SQLAlchemy spells the working directory.
                if let Some(rest) = text.strip_prefix("sqlite:///./") {
                    return Ok(Self(format!("sqlite://{rest}")));
                }
                match text.strip_prefix("sqlite:///").map(|path| path.split('?').next().unwrap_or_default()) {
                    // There it is a file in the working directory, here one in the root.
                    Some(file) if !file.contains('/') => Err(format!(
                        "write `sqlite://{file}` for a file in the working directory, or `sqlite:////{file}` for one in /"
                    )),
                    _ => Ok(Self(text.to_owned())),
                }
            }
            "postgres" | "postgresql" if url.cannot_be_a_base() || url.path().contains('@') => Err(expected.to_owned()),
            "postgres" | "postgresql" => Ok(Self(text.to_owned())),
            scheme if scheme.contains('+') => {
                Err("leave out the driver: write `postgresql://…`, not `postgresql+driver://…`".to_owned())
            }
            _ => Err(expected.to_owned()),
        }
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
        Self::parse(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// The origin of web pages, as a browser sends it, or a pattern for several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Origin(String);

impl Origin {
    pub(super) fn http_localhost(port: u16) -> Self {
        Self(format!("http://localhost:{port}"))
    }

    /// Every port of this machine, for development.
    #[must_use]
    pub fn of_this_machine() -> [Self; 2] {
        ["http://localhost:*", "http://127.0.0.1:*"].map(|pattern| Self(pattern.to_owned()))
    }

    /// The origin or the pattern, as it was set.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether others can have a page whose origin matches, who need not be the operator's own.
    #[must_use]
    pub fn is_open_to_others(&self) -> bool {
        self.0.contains('*') && !self.0.ends_with(":*")
    }

    /// Whether the page whose origin is `origin` is meant. A star stands for a part of one label, or for a port.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        let Some((before, after)) = self.0.split_once('*') else { return self.0 == origin };
        let part = origin.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        let is_allowed = |byte: u8| match after {
            "" => byte.is_ascii_digit(),
            _ => byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
        };
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(is_allowed))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let sample = match text.matches('*').count() {
            0 => return Self::parse_single(text),
            1 => text.replace(":*", ":1").replace('*', "x"),
            _ => return Err("one `*` can stand in an origin".to_owned()),
        };
        Self::parse_single(&sample)?;
        let (scheme, host) = text.split_once("://").unwrap_or_default();
        let is_web = ["http", "https"].contains(&scheme);
        if let Some(host) = host.strip_suffix(":*") {
            return match host {
                "localhost" | "127.0.0.1" | "[::1]" if is_web => Ok(Self(text.to_owned())),
                _ => Err("`:*` stands for every port of this machine only, as in `http://localhost:*`".to_owned()),
            };
        }
        match host.split_once('.') {
            Some((label, rest)) if is_web && label.contains('*') && rest.contains('.') => Ok(Self(text.to_owned())),
            _ => Err(
                "a `*` stands in the first of at least three labels of the host, as in `https://*.example.com`, or \
                      for the port, as in `http://localhost:*`"
                    .to_owned(),
            ),
        }
    }

    fn parse_single(text: &str) -> Result<Self, String> {
        let expected = || "expected an origin such as `https://app.example.com`".to_owned();
        let url = Url::parse(text).map_err(|_| expected())?;
        let canonical = if url.origin().is_tuple() {
            // What a browser sends is the canonical form: anything else would never match.
            url.origin().ascii_serialization()
        } else {
            // Of web views and extensions, to whose schemes the rules for the web don't apply. The others have the origin
            // `null`, which any page can have.
            let has_origin = url.has_host() && !["file", "data", "blob", "javascript"].contains(&url.scheme());
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let host = url.host_str().filter(|_| has_origin).ok_or_else(expected)?;
            format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase())
        };
        if canonical == text { Ok(Self(canonical)) } else { Err(format!("write the origin as `{canonical}`")) }
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// The name of a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FieldName(String);

impl FieldName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match poem::http::HeaderName::try_from(&text) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(de::Error::custom("expected the name of a header such as `sentry-trace`")),
        }
    }
}

/// An address, or a network of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let expected = "expected an address such as `10.0.0.7`, or a network such as `10.0.0.0/8`";
        network.map(Self).map_err(|_| de::Error::custom(expected))
    }
}

/// The path below which a proxy serves the API: empty, or `/` and some segments, without a slash at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BasePath(String);

impl BasePath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a path such as `/todo`.
    ///
    /// # Errors
    /// It is none, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let path = text.trim_end_matches('/');
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let is_path = path.is_empty() || path.starts_with('/') && !path.contains("//");
        if is_path && path.len() <= 200 && path.bytes().all(is_allowed) {
            Ok(Self(path.to_owned()))
        } else {
            Err("expected a path such as `/todo`")
        }
    }
}

impl<'de> Deserialize<'de> for BasePath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// Reads an address with its port.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    let no_address = |_| de::Error::custom("expected an IP address and a port, such as `127.0.0.1:9464`");
    text.map(|text| text.parse().map_err(no_address)).transpose()
}

/// Where an issuer publishes its keys. Its query may hold a key, which is not printed.
#[derive(Clone)]
pub struct JwksUrl(Url);

impl JwksUrl {
    /// The address with its query. Whoever calls this sees to it that it goes nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is an address of this machine.
    #[must_use]
    pub fn is_of_this_machine(&self) -> bool {
        match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    /// Whether somebody on the way could put other keys in the place of the issuer's.
    #[must_use]
    pub fn is_open_to_others(&self) -> bool {
        self.0.scheme() == "http" && !self.is_of_this_machine()
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if url.query().is_some() {
            url.set_query(Some("hidden"));
        }
        url.fmt(to)
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl Serialize for JwksUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JwksUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Url::parse(&String::deserialize(from)?) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Err(de::Error::custom("expected an address without a user name and a password"))
            }
            Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(Self(url)),
            _ => Err(de::Error::custom("expected an address such as `https://app.example.com/api/auth/jwks`")),
        }
    }
}
