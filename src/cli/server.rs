//! `trainyard server`: its flags, and one line on standard error for what stops it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use url::Url;

use crate::config::env;
use crate::server::accounts::{self, Role};
use crate::server::{self, Options, TlsFiles, Version, backup};
use crate::telemetry::logs;

#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct Flags {
    #[command(subcommand)]
    action: Option<Action>,

    /// Address and port for API, files and pages.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8008",
        env = env::SERVER_LISTEN
    )]
    listen: SocketAddr,

    /// A further address and port for files alone, at its root. Needed by clients of 2020 (`trains`), which send their
    /// keys only to a file server whose address has no path.
    #[arg(long, value_name = "ADDRESS", env = env::SERVER_FILES_LISTEN)]
    files_listen: Option<SocketAddr>,

    /// Folder for the database, the keys and the files.
    #[arg(
        long,
        value_name = "DIR",
        env = env::SERVER_DATA,
        required = true
    )]
    data: Option<PathBuf>,

    /// Address under which clients reach the server, from pods too; default: the address listened on.
    #[arg(long, value_name = "URL", env = env::SERVER_PUBLIC_URL)]
    public_url: Option<Url>,

    /// Write a clearml.conf with address and keys here, readable by its owner alone.
    #[arg(long, value_name = "FILE", env = env::SERVER_WRITE_CONF)]
    write_conf: Option<PathBuf>,

    /// Certificate (PEM, with those that vouch for it): serve https. A renewed file is used within a minute.
    #[arg(
        long,
        value_name = "FILE",
        env = env::SERVER_TLS_CERT,
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// Private key (PEM) of the certificate.
    #[arg(
        long,
        value_name = "FILE",
        env = env::SERVER_TLS_KEY,
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// API version of the ClearML server that is played; what came later is then missing.
    #[arg(long, value_name = "VERSION", default_value_t = Version::NEWEST, env = env::SERVER_API_VERSION)]
    api_version: Version,

    /// A running task that was silent for so many seconds is stopped.
    #[arg(long, value_name = "SECONDS", default_value_t = 7200, env = env::SERVER_WATCHDOG_TIMEOUT,
          value_parser = clap::value_parser!(u64).range(1..))]
    watchdog_timeout: u64,

    /// How often, in seconds, silent tasks are looked for and what is too old is thrown away.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, env = env::SERVER_WATCHDOG_INTERVAL,
          value_parser = clap::value_parser!(u64).range(1..))]
    watchdog_interval: u64,

    /// Throw log lines away after so many days; default: never.
    #[arg(long, value_name = "DAYS", env = env::SERVER_KEEP_LOGS,
          value_parser = clap::value_parser!(u32).range(1..))]
    keep_logs: Option<u32>,

    /// Throw scalars, plots and debug samples of a task away once it has not changed for so many days and is neither
    /// queued, running nor published; default: never. The last values of scalars stay.
    #[arg(long, value_name = "DAYS", env = env::SERVER_KEEP_METRICS,
          value_parser = clap::value_parser!(u32).range(1..))]
    keep_metrics: Option<u32>,

    /// The largest file that is taken, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64 << 10, env = env::SERVER_LARGEST_FILE,
          value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    largest_file: u64,

    /// System tags that hide a queue from lists, with commas between them.
    #[arg(
        long,
        value_name = "TAGS",
        default_value = "k8s-glue",
        value_delimiter = ',',
        env = env::SERVER_HIDDEN_QUEUE_TAGS
    )]
    hidden_queue_tags: Vec<String>,

    /// Which log lines are written, in the syntax of RUST_LOG.
    #[arg(long, value_name = "FILTER", env = env::LOG)]
    log: Option<String>,
}

/// What else can be done with a server's data folder.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Copies database, keys and files into one file (a tar archive); the server may be running.
    Backup {
        /// Where to; replaced once the copy is complete. Holds secrets.
        file: PathBuf,
        #[command(flatten)]
        folder: Folder,
    },
    /// Makes a data folder from a backup; there must be no server's data in it yet.
    Restore {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        folder: Folder,
    },
    /// Users and their keys; a running server learns of changes within seconds.
    #[command(subcommand)]
    User(UserAction),
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// Folder with the server's database, keys and files.
    #[arg(long, value_name = "DIR", env = env::SERVER_DATA)]
    data: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum UserAction {
    /// Adds a user and prints a key pair, once: access key and secret key as JSON.
    Add {
        /// Name of the user.
        name: String,
        /// What the user may do.
        #[arg(long, default_value = "user")]
        role: Role,
        /// Days after which the key pair counts no more; default: never.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36500))]
        expires: Option<u32>,
        #[command(flatten)]
        folder: Folder,
    },
    /// Adds a further key pair for a user and prints it, once.
    AddKey {
        /// Name of the user.
        name: String,
        /// Days after which the key pair counts no more; default: never.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36500))]
        expires: Option<u32>,
        #[command(flatten)]
        folder: Folder,
    },
    /// Shows all users with their roles and access keys.
    List {
        #[command(flatten)]
        folder: Folder,
    },
    /// Takes a user away: keys and tokens count no more, tasks stay.
    Remove {
        /// Name of the user.
        name: String,
        #[command(flatten)]
        folder: Folder,
    },
}

/// Runs the server until it is told to stop, or does what was asked with its folder.
pub(super) fn main(flags: Flags) -> ExitCode {
    let Flags {
        action,
        listen,
        files_listen,
        data,
        public_url,
        write_conf,
        tls_cert,
        tls_key,
        api_version,
        watchdog_timeout,
        watchdog_interval,
        keep_logs,
        keep_metrics,
        largest_file,
        hidden_queue_tags,
        log,
    } = flags;
    if let Some(action) = action {
        return ended(act(action));
    }
    let Some(data) = data else {
        super::print_error(
            "--data is missing: the folder for the database, the keys and the files",
        );
        return ExitCode::from(2);
    };
    if let Err(error) = logs::init(logs::Format::Text, log.as_deref()) {
        super::print_error(&error.to_string());
        return ExitCode::from(2);
    }
    let options = Options {
        files_listen,
        public_url,
        write_conf,
        api_version,
        tls: tls_cert
            .zip(tls_key)
            .map(|(cert, key)| TlsFiles { cert, key }),
        silence: Duration::from_secs(watchdog_timeout),
        watch: Duration::from_secs(watchdog_interval),
        keep_logs,
        keep_metrics,
        largest_file: largest_file << 20,
        hidden_queue_tags: hidden_queue_tags
            .into_iter()
            .filter(|tag| !tag.is_empty())
            .collect(),
        ..Options::new(data)
    };
    ended(server::run(listen, options).map_err(Into::into))
}

/// The exit code, and one line for what failed.
fn ended(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += ": ";
        text += &cause.to_string();
        source = cause.source();
    }
    super::print_error(&text);
    ExitCode::FAILURE
}

fn act(action: Action) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    match action {
        Action::Backup { file, folder } => {
            let carried = backup::backup(&folder.data, &file)?;
            writeln!(
                out,
                "{} files, {} bytes in {}",
                carried.files,
                carried.bytes,
                file.display()
            )?;
        }
        Action::Restore { file, folder } => {
            let carried = backup::restore(&file, &folder.data)?;
            let data = folder.data.display();
            writeln!(
                out,
                "{} files, {} bytes in {data}",
                carried.files, carried.bytes
            )?;
        }
        Action::User(action) => act_on_users(action, &mut out)?,
    }
    Ok(())
}

fn act_on_users(
    action: UserAction,
    out: &mut impl std::io::Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let shown = |pair: accounts::KeyPair| serde_json::json!({"access_key": pair.access_key, "secret_key": pair.secret_key});
    match action {
        UserAction::Add {
            name,
            role,
            expires,
            folder,
        } => {
            let pair = accounts::add(&folder.data, &name, role, expires)?;
            writeln!(out, "{}", shown(pair))?;
        }
        UserAction::AddKey {
            name,
            expires,
            folder,
        } => {
            let pair = accounts::add_key(&folder.data, &name, expires)?;
            writeln!(out, "{}", shown(pair))?;
        }
        UserAction::List { folder } => {
            for user in accounts::list(&folder.data)? {
                writeln!(out, "{} ({})", user.name, user.role)?;
                for key in user.keys {
                    writeln!(out, "  {key}")?;
                }
            }
        }
        UserAction::Remove { name, folder } => accounts::remove(&folder.data, &name)?,
    }
    Ok(())
}
