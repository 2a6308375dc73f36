//! Where a command works: on a directory (`--data`), or through a server
//! (`--server`). One of them is chosen before the command begins; a flag wins
//! over an environment variable, and two of a kind are refused.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use tokio::runtime;

use super::data::DataDir;
use super::error::CliError;
use super::guard::GuardArguments;
use crate::client::{Client, ClientOptions};
use crate::note::OriginName;
use crate::rpc::{FileError, read_public, read_secret};

/// Failures in a row after which a call is given up: half a minute. A watch is
/// more patient.
const ATTEMPTS: u32 = 10;

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArguments {
    /// Work through the server at this URL instead of on a directory
    #[arg(
        long,
        value_name = "URL",
        env = "CONVERGE_LEDGER_SERVER",
        hide_env_values = true
    )]
    server: Option<String>,
    /// Certificates, in PEM, of who vouches for an https:// server
    #[arg(long, value_name = "FILE")]
    server_ca: Option<PathBuf>,
    /// Certificate, in PEM, to show to the server
    #[arg(long, value_name = "FILE", requires = "server_key")]
    server_cert: Option<PathBuf>,
    /// Private key of --server-cert, in PEM; only its owner may read it
    #[arg(long, value_name = "FILE", requires = "server_cert")]
    server_key: Option<PathBuf>,
    /// File whose first line is the bearer token; only its owner may read it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Of the commands that read.
#[derive(Debug, Args)]
pub(super) struct ReadArguments {
    #[command(flatten)]
    pub(super) server: ServerArguments,
    /// Read the contexts of this origin, of a server that holds several. Without
    /// it a context of the server's own store comes first, then that of the only
    /// mirror that has it
    #[arg(
        long,
        value_name = "NAME",
        value_parser = parse_origin,
        help_heading = "Server"
    )]
    origin: Option<OriginName>,
}

fn parse_origin(text: &str) -> Result<OriginName, String> {
    OriginName::new(text).map_err(|error| error.to_string())
}

/// Where a command works.
pub(super) enum Target {
    Directory(DataDir),
    Server(Box<Remote>),
}

impl Target {
    /// `data` and the arguments of the command, and where they came from.
    pub(super) fn choose(
        data: Option<PathBuf>,
        server: Option<&ServerArguments>,
        guard: GuardArguments,
        matches: &ArgMatches,
    ) -> Result<Self, CliError> {
        let of_command = matches.subcommand().map(|(_, matches)| matches);
        let data_given = data
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty())
            .and_then(|_| given(Some(matches), "data").max(given(of_command, "data")));
        let server = server.and_then(|arguments| {
            let url = arguments.server.as_deref()?;
            let by = given(of_command, "server")?;
            (!url.is_empty()).then_some((arguments, url, by))
        });
        let Some((arguments, url, server_given)) = server else {
            return Ok(Self::Directory(DataDir::new(data, guard)?));
        };
        match data_given {
            Some(data_given) if data_given == server_given => Err(CliError::usage(
                "--data and --server exclude each other",
            )
            .hint(
                "Give one of them. A flag wins over CONVERGE_LEDGER_DATA and \
                     CONVERGE_LEDGER_SERVER.",
            )),
            Some(data_given) if data_given > server_given => {
                Ok(Self::Directory(DataDir::new(data, guard)?))
            }
            _ => Ok(Self::Server(Box::new(Remote {
                options: arguments.options(url)?,
                origin: None,
            }))),
        }
    }

    /// The same, for a command that reads.
    pub(super) fn reading(mut self, arguments: &ReadArguments) -> Result<Self, CliError> {
        match &mut self {
            Self::Server(remote) => remote.origin.clone_from(&arguments.origin),
            Self::Directory(_) if arguments.origin.is_some() => {
                return Err(CliError::usage("--origin is of use only with --server")
                    .hint("A directory holds one origin: `keys` prints it."));
            }
            Self::Directory(_) => (),
        }
        Ok(self)
    }

    /// The directory, for commands that know no server.
    pub(super) fn directory(&self) -> Result<&DataDir, CliError> {
        match self {
            Self::Directory(data) => Ok(data),
            Self::Server(_) => Err(CliError::usage(
                "this command needs a directory: --data DIR",
            )),
        }
    }
}

/// How a value was given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Environment,
    Flag,
}

fn given(matches: Option<&ArgMatches>, id: &str) -> Option<By> {
    let matches = matches?;
    // Not every command has every argument.
    matches.try_contains_id(id).ok().filter(|there| *there)?;
    match matches.value_source(id)? {
        ValueSource::CommandLine => Some(By::Flag),
        ValueSource::EnvVariable => Some(By::Environment),
        _ => None,
    }
}

impl ServerArguments {
    /// Refuses what would go unused.
    pub(super) fn check_unused(&self, target: &Target) -> Result<(), CliError> {
        let unused = [
            (&self.server_ca, "--server-ca"),
            (&self.server_cert, "--server-cert"),
            (&self.token_file, "--token-file"),
        ];
        match (target, unused.iter().find(|(file, _)| file.is_some())) {
            (Target::Directory(_), Some((_, flag))) => Err(CliError::usage(format_args!(
                "{flag} is of use only with --server"
            ))),
            _ => Ok(()),
        }
    }

    fn options(&self, url: &str) -> Result<ClientOptions, CliError> {
        let mut options = ClientOptions::new(url);
        options.retry.attempts = ATTEMPTS;
        if let Some(path) = &self.server_ca {
            options = options.with_ca_pem(read_public(path)?.to_vec());
        }
        if let (Some(certificate), Some(key)) = (&self.server_cert, &self.server_key) {
            let certificate = read_public(certificate)?;
            let key = read_secret(key)?;
            options = options.with_identity_pem(certificate.to_vec(), key.to_vec());
        }
        if let Some(path) = &self.token_file {
            let bytes = read_secret(path)?;
            let line = bytes.split(|byte| *byte == b'\n').next();
            let token = std::str::from_utf8(line.unwrap_or_default())
                .ok()
                .map(str::trim)
                .filter(|token| !token.is_empty())
                .ok_or_else(|| {
                    CliError::usage("its first line holds no token").context(path.display())
                })?;
            options = options.with_token(token);
        }
        Ok(options)
    }
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> Self {
        Self::could_not(error)
    }
}

/// A server and how to reach it.
pub(super) struct Remote {
    options: ClientOptions,
    /// Whose contexts are read, if it was said.
    origin: Option<OriginName>,
}

impl Remote {
    /// The same server, with other options.
    pub(super) fn with(&self, change: impl FnOnce(&mut ClientOptions)) -> Self {
        let mut options = self.options.clone();
        change(&mut options);
        let origin = self.origin.clone();
        Self { options, origin }
    }

    /// Connects, and does `work` on this thread.
    pub(super) fn run<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        // The connection has a thread of its own: it stays alive while this
        // one waits for a reader of stdout.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| CliError::could_not(error).context("could not start the runtime"))?;
        let outcome = runtime.block_on(async {
            let client = Client::connect(self.options.clone()).await?;
            let client = match &self.origin {
                Some(origin) => client.with_origin(origin.clone()),
                None => client,
            };
            work(client).await
        });
        // Reads of stdin cannot be interrupted, and need not be waited for.
        runtime.shutdown_background();
        outcome
    }
}
