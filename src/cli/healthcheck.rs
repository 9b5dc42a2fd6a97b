//! `taskpact healthcheck`

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use taskpact::config::Config;
use tokio::{net::TcpStream, time::timeout};

use super::{Failure, reachable};

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(config: &Config) -> Result<(), Failure> {
    match timeout(TIMEOUT, ask(config)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::Other(format!("the server answered {status}"))),
        Ok(Err(error)) => Err(Failure::NoAnswer(error)),
        Err(_) => Err(Failure::NoAnswer("it takes too long".into())),
    }
}

async fn ask(config: &Config) -> Result<StatusCode, Box<dyn Error + Send + Sync>> {
    let host = &config.server.host;
    let address: Result<IpAddr, _> = host.parse();
    let host = address.map_or_else(|_| host.clone(), |ip| reachable(SocketAddr::new(ip, 0)).ip().to_string());
    let stream = TcpStream::connect((host.as_str(), config.server.port.get())).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/health").header("Host", host).body(String::new())?;
    Ok(sender.send_request(request).await?.status())
}
