//! The README's commands, as a user types them: what they print, and what they leave.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::leftovers::{self, Held};
use crate::cluster::{self, Cluster};
use crate::{demo, dirs, sh};

fn xtask(arguments: &[&str]) -> Result<Command> {
    let program = std::env::current_exe().context("where is this program?")?;
    let mut command = sh::command(program);
    command.args(arguments).current_dir(dirs::repository());
    Ok(command)
}

/// A demo on the cluster of `kubeconfig`, which stays.
pub fn demo_on(kubeconfig: &Path) -> Result<()> {
    follow(xtask(&["demo", "--kubeconfig"])?.arg(kubeconfig))
}

/// A demo that finds no cluster: it makes one, and all is gone after it.
pub fn demo_alone() -> Result<()> {
    follow(xtask(&["demo"])?.env_remove("KUBECONFIG"))?;
    leftovers::check()?;
    if let [process, ..] = demo::kept()?.as_slice() {
        bail!("the demo has left process {} running", process.pid);
    }
    Ok(())
}

/// Shows what a demo prints, and judges it.
fn follow(command: &mut Command) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start the demo")?;
    let stdout = child.stdout.take().context("the demo has no output")?;
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("the demo's output cannot be read")?;
        println!("{line}");
        lines.push(line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the demo failed ({status})");
    }
    judge(&lines)
}

/// The demo promises the server's address, lines of kubectl to look around, and one last line.
fn judge(lines: &[String]) -> Result<()> {
    let has = |parts: &[&str]| {
        lines
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    if !has(&["server: http"]) {
        bail!("the demo does not tell the server's address");
    }
    if !has(&["KUBECONFIG=", "kubectl", "get queuebinding"]) {
        bail!("the demo tells no line of kubectl to look around");
    }
    let last = lines.last().map(String::as_str).unwrap_or_default();
    let told = last
        .strip_prefix("demo: task ")
        .and_then(|rest| rest.strip_suffix(" s"))
        .and_then(|rest| rest.split_once(" completed in "));
    let good = told.is_some_and(|(task, seconds)| {
        let hex = task.len() == 32 && task.chars().all(|digit| digit.is_ascii_hexdigit());
        hex && seconds.parse::<f64>().is_ok_and(|seconds| seconds > 0.0)
    });
    if !good {
        bail!("the demo ends with {last:?} instead of: demo: task ID completed in SECONDS s");
    }
    Ok(())
}

/// A cluster of somebody else is used as it is, and never ended: here the local one, under another kubeconfig.
pub fn foreign(cluster: &Cluster) -> Result<()> {
    let folder = dirs::state()?.join("another");
    sh::make_dir(&folder)?;
    let kubeconfig = folder.join("kubeconfig");
    fs::copy(&cluster.kubeconfig, &kubeconfig)?;
    let path = std::env::join_paths(std::iter::once(cluster.bin.clone()).chain(
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()),
    ))?;
    let told = |command: &mut Command| {
        sh::output(
            command
                .env("PATH", &path)
                .env("TRAINYARD_REGISTRY", &cluster.registry),
        )
    };
    let given = told(xtask(&["cluster", "up", "--kubeconfig"])?.arg(&kubeconfig))?;
    let set = |verb: &str| told(xtask(&["cluster", verb])?.env("KUBECONFIG", &kubeconfig));
    let name = kubeconfig.display().to_string();
    for (what, said, wanted) in [
        (
            "up --kubeconfig",
            given,
            format!("export KUBECONFIG={name}\n"),
        ),
        ("up", set("up")?, format!("export KUBECONFIG={name}\n")),
        (
            "status",
            set("status")?,
            format!("cluster of {name}: answers"),
        ),
        ("down", set("down")?, format!("cluster of {name}: not ours")),
    ] {
        if !format!("{said}\n").contains(&wanted) {
            bail!("cluster {what} on another cluster says {said:?} without {wanted:?}");
        }
    }
    let missing = folder.join("missing");
    let refused = told(xtask(&["cluster", "status"])?.env("KUBECONFIG", &missing));
    match refused {
        Err(error) if format!("{error:#}").contains("is not there") => {}
        other => bail!("a kubeconfig that is not there is answered with {other:?}"),
    }
    sh::remove(&folder)?;
    if !cluster::is_up(None) {
        bail!("the cluster is not well after it was used as another one");
    }
    Ok(())
}

/// Components that die while pods run: the next `up` sweeps what they leave.
pub fn killed(cluster: &Cluster) -> Result<()> {
    cluster::crash::occupy(cluster)?;
    let held = Held::now()?;
    cluster::crash::kill()?;
    let begun = Instant::now();
    cluster::up(None)?;
    let took = begun.elapsed();
    held.check_gone()?;
    // Five times what is stated, as a shared machine may take.
    if took > Duration::from_secs(20) * 5 {
        bail!(
            "a cluster whose programs are built takes {:.0} s to come up",
            took.as_secs_f64()
        );
    }
    Ok(())
}

/// A cluster that goes down leaves nothing on the machine.
pub fn down(cluster: &Cluster) -> Result<()> {
    let held = cluster::crash::occupy(cluster).and_then(|()| Held::now());
    cluster::down()?;
    leftovers::check()?;
    held?.check_gone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &[&str]) -> Result<()> {
        judge(&lines.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_demo_is_held_to_its_last_lines() {
        let server = "      server: http://10.89.0.1:40000";
        let look = "        KUBECONFIG=/k kubectl -n trainyard-demo get queuebinding";
        let last = "demo: task 22a656ea1982495ca67e5caffa7e1bb6 completed in 28.2 s";
        assert!(judged(&[server, look, last]).is_ok());
        assert!(judged(&[look, last]).is_err());
        assert!(judged(&[server, last]).is_err());
        assert!(judged(&[server, look]).is_err());
        assert!(judged(&[server, look, last, "more"]).is_err());
        let short = "demo: task 22a6 completed in 28.2 s";
        assert!(judged(&[server, look, short]).is_err());
    }
}
