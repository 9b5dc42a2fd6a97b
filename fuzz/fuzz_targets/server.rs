//! The operations on a database of their own, without a network.

use std::{sync::LazyLock, time::Duration};

use poem::{Endpoint, Request, Response, Route, error::ResponseError, http::StatusCode};
use serde_json::json;
use taskpact::{
    api,
    auth::{Verifier, token},
    config::Config,
    contract::Contract,
    problem::Fault,
    request::Violations,
    store::Store,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub struct Server {
    runtime: Runtime,
    routes: Route,
    verifier: Verifier,
    contract: Contract,
    /// Who may do anything, with `token`.
    pub token: String,
    _folder: TempDir,
}

pub const USER: &str = "ann";

pub static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let (runtime, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let mut config = Config::default();
    config.auth.secret = Some("a secret that is long enough for everybody".to_owned().into());
    let url = format!("sqlite://{}/tasks.db", folder.path().display());
    config.database.url = serde_json::from_value(json!(url)).unwrap();
    let (verifier, store) = runtime.block_on(async {
        let store = Store::new(&config.database).unwrap();
        store.migrate_up().await.unwrap();
        (Verifier::new(&config.auth).await.unwrap(), store)
    });
    let routes = api::add_routes(store, Route::new());
    let token = token::mint(&config.auth, USER, Duration::from_secs(86_400)).unwrap();
    Server { runtime, routes, verifier, contract: Contract::new(), token, _folder: folder }
});

impl Server {
    /// What a request is answered. It must not be a failure of ours.
    pub fn answer(&self, mut request: Request) -> StatusCode {
        request.set_data(self.verifier.clone());
        request.set_data(self.contract.validators());
        request.set_data(Violations::default());
        let outcome: poem::Result<Response> = self.runtime.block_on(self.routes.call(request));
        let status = match outcome {
            Ok(answer) => answer.status(),
            Err(error) => {
                let fault = Fault::from_poem_error(error, Vec::new);
                assert!(!fault.status().is_server_error(), "{}", fault.cause());
                fault.status()
            }
        };
        assert!(!status.is_server_error(), "{status}");
        status
    }
}
