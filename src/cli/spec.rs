//! `taskpact spec`

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};
use taskpact::contract::Contract;

use super::{Failure, print};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The form to print it in
    #[arg(long, value_enum, default_value_t = Form::Yaml)]
    format: Form,
    /// The version of OpenAPI to print it in
    #[arg(long, value_enum, default_value_t = OpenApi::V3_0)]
    openapi: OpenApi,
    /// Print nothing, but fail if FILE is not exactly this contract in this form
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OpenApi {
    #[value(name = "3.0")]
    V3_0,
    #[value(name = "3.1")]
    V3_1,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let contract = Contract::new();
    let (document, openapi) = match arguments.openapi {
        OpenApi::V3_0 => (contract.document, ""),
        OpenApi::V3_1 => (contract.openapi_3_1(), " --openapi 3.1"),
    };
    let (text, format) = match arguments.format {
        Form::Yaml => (document.yaml, ""),
        Form::Json => (document.json, " --format json"),
    };
    let text = std::str::from_utf8(&text).expect("a contract is text");
    let Some(file) = &arguments.check else { return print(text) };
    let name = file.display();
    let writes = format!("`taskpact spec{openapi}{format} > {name}` writes it");
    let found = fs::read_to_string(file).map_err(|error| Failure::File(name.to_string(), error))?;
    if found == text {
        return Ok(());
    }
    if found.starts_with("openapi: \"3.1") && !text.starts_with("openapi: \"3.1") {
        return Err(Failure::Other(format!("{name} is a contract in OpenAPI 3.1: add `--openapi 3.1`")));
    }
    if found.replace("\r\n", "\n") == text {
        return Err(Failure::Other(format!(
            "{name} is this server's contract, but with other line ends (CRLF): {writes}. With git, \
             `{name} text eol=lf` in .gitattributes keeps them"
        )));
    }
    if found.trim_end() == text.trim_end() {
        return Err(Failure::Other(format!(
            "{name} is this server's contract but for the empty lines at its end: {writes}"
        )));
    }
    let line = found.lines().zip(text.lines()).take_while(|(found, right)| found == right).count() + 1;
    Err(Failure::Other(format!(
        "{name} is not this server's contract: it differs from line {line} on{}. {writes}",
        if line > found.lines().count() { ", where it ends" } else { "" }
    )))
}
