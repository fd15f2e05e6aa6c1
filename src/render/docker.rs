//! The docker arguments that a task asks for → wishes that are granted, or a note that says why not.
//!
//! Source: `task.container.arguments` (protocol.md §3.2). Values are never repeated in notes: they may be secrets.
//! [`ARGUMENTS`](crate::crd::CONTAINER_ARGUMENTS) are the flags that have a counterpart in a pod; each works only where
//! the binding lists it, amounts of resources only up to the binding's maximum as well.

mod mounts;
mod names;
mod words;

use serde_json::{Value, json};

use super::fields::at;
use super::notes::Notes;
use super::wishes::Wishes;
use crate::crd::{CONTAINER_ARGUMENTS, OverridesSpec, Quantity};
use words::{Flag, Item};

/// Flags that ask for what is so in every pod; there is nothing to honour and nothing to tell.
const AS_IT_IS: &[&str] = &[
    "rm",
    "detach",
    "interactive",
    "tty",
    "init",
    "attach",
    "quiet",
    "pull",
];

/// The longest variable with its name, in bytes: Linux starts no process with a longer one.
const LONGEST_VARIABLE: usize = (128 << 10) - 1;

/// What the reading of one task's arguments needs.
pub(super) struct Reader<'a> {
    pub(super) overrides: &'a OverridesSpec,
    /// The template's pod and its task container, for what they already say.
    pub(super) pod: &'a Value,
    pub(super) container: &'a Value,
}

/// Why a flag that is allowed is not honoured.
type Refusal = String;

impl Reader<'_> {
    /// Reads docker arguments into `wishes`; what is refused becomes a note.
    pub(super) fn read(&self, arguments: &str, wishes: &mut Wishes, notes: &mut Notes) {
        let items = match words::items(arguments) {
            Ok(items) => items,
            Err(reason) => {
                notes.add(format!("container arguments are not honoured: {reason}"));
                return;
            }
        };
        for item in items {
            let Item::Flag(flag) = item else {
                notes.add(
                    "a word of the container arguments belongs to no flag and is not honoured",
                );
                continue;
            };
            let name = flag.name.as_str();
            if AS_IT_IS.contains(&name) || asks_for_nothing(&flag) {
                continue;
            }
            if !self
                .overrides
                .container_arguments
                .iter()
                .any(|allowed| allowed == name)
            {
                notes.add(format!(
                    "container argument --{name} is refused \
                     (hint: the binding's overrides.containerArguments lists what a task may ask for)"
                ));
            } else if !CONTAINER_ARGUMENTS.contains(&name) {
                notes.add(format!(
                    "container argument --{name} is not honoured: a pod has nothing like it"
                ));
            } else if let Err(reason) = self.grant(&flag, wishes, notes) {
                notes.add(format!(
                    "container argument --{name} is not honoured: {reason}"
                ));
            }
        }
    }

    fn grant(&self, flag: &Flag, wishes: &mut Wishes, notes: &mut Notes) -> Result<(), Refusal> {
        if flag.name == "privileged" {
            self.privileged(wishes);
            return Ok(());
        }
        if flag.name == "read-only" {
            wishes
                .security
                .insert("readOnlyRootFilesystem".into(), json!(true));
            return Ok(());
        }
        let value = flag.value.as_deref().ok_or("it has no value")?;
        match flag.name.as_str() {
            "env" => return variable(value, wishes),
            "shm-size" => {
                wishes.shm_size = Some(bytes(value).ok_or("its value is no size such as 8g")?);
            }
            "gpus" => self.gpus(value, wishes, notes)?,
            "cpus" => {
                let cpus = value
                    .parse()
                    .map_err(|_| "its value is no number of CPUs")?;
                wishes.ask(
                    "cpu",
                    cpus,
                    "container argument --cpus",
                    self.overrides,
                    notes,
                );
            }
            "memory" => {
                let size = bytes(value).ok_or("its value is no size such as 8g")?;
                let size = as_amount(size);
                wishes.ask(
                    "memory",
                    size,
                    "container argument --memory",
                    self.overrides,
                    notes,
                );
            }
            "volume" => mounts::volume(value, self, wishes)?,
            "mount" => mounts::mount(value, self, wishes)?,
            "tmpfs" => mounts::tmpfs(value, self, wishes)?,
            "user" => self.user(value, wishes)?,
            "workdir" => {
                if !value.starts_with('/') {
                    return Err("its value is no absolute path".into());
                }
                wishes.working_dir = Some(value.to_owned());
            }
            "ipc" => namespace(value, &["private", "shareable"], "hostIPC", wishes)?,
            "pid" => namespace(value, &["private"], "hostPID", wishes)?,
            "network" => {
                namespace(value, &["bridge", "default"], "hostNetwork", wishes)?;
                if value == "host" {
                    wishes
                        .pod
                        .insert("dnsPolicy".into(), json!("ClusterFirstWithHostNet"));
                }
            }
            "entrypoint" if value.is_empty() => {}
            "entrypoint" => return Err("the executor is the first process of each task".into()),
            "cap-add" => wishes.capabilities_added.push(capability(value)?),
            "cap-drop" => wishes.capabilities_dropped.push(capability(value)?),
            "hostname" => {
                let name = names::dns_label(value).ok_or("its value is no name of a host")?;
                wishes.pod.insert("hostname".into(), json!(name));
            }
            "add-host" => names::add_host(value, self, wishes)?,
            "dns" => {
                let address: core::net::IpAddr =
                    value.parse().map_err(|_| "its value is no address")?;
                wishes.nameservers.push(address.to_string());
            }
            "dns-search" => names::search(value, self, wishes)?,
            _ => return Err("a pod has nothing like it".into()),
        }
        Ok(())
    }

    /// `--gpus 2`, `--gpus all`, `--gpus '"device=0,1"'`, `--gpus count=2,capabilities=compute`.
    fn gpus(&self, value: &str, wishes: &mut Wishes, notes: &mut Notes) -> Result<(), Refusal> {
        const WISH: &str = "container argument --gpus";
        let resource = self.gpu_resource();
        let plain = value.trim_matches('"');
        let mut count = None;
        let mut devices = None;
        for part in plain.split(',').map(|part| part.trim().trim_matches('"')) {
            match part.split_once('=') {
                Some(("count", "all")) => count = Some("all"),
                Some(("count", number)) => count = Some(number),
                Some(("device", _)) => devices = Some(1),
                Some(_) => devices = devices.filter(|_| false),
                None if devices.is_some() => devices = devices.map(|known: i64| known + 1),
                None => count = Some(part),
            }
        }
        let number = match (devices, count) {
            (Some(devices), _) => {
                notes.add(format!(
                    "{WISH}: a task cannot choose among the GPUs of a node; {devices} are asked for"
                ));
                devices
            }
            (None, Some("all" | "-1")) => {
                // All that the pod has; more than the template gives is asked for by number.
                let given = ["limits", "requests"]
                    .iter()
                    .any(|kind| at(self.container, &["resources", kind, &resource]).is_some());
                return if given {
                    Ok(())
                } else {
                    Err(format!(
                        "the template gives no {resource}; ask for a number of them"
                    ))
                };
            }
            (None, count) => count
                .and_then(|count| count.parse().ok())
                .ok_or("its value is no number of GPUs")?,
        };
        wishes.ask(
            &resource,
            Quantity::whole(number),
            WISH,
            self.overrides,
            notes,
        );
        Ok(())
    }

    /// The resource that GPUs are here: the template's, else one that may be asked for, else NVIDIA's.
    fn gpu_resource(&self) -> String {
        let is_gpu = |name: &&String| {
            name.ends_with("/gpu") || name.contains("/gpu.") || name.contains("/mig-")
        };
        let of_template = ["limits", "requests"].iter().find_map(|kind| {
            let amounts = at(self.container, &["resources", kind])?.as_object()?;
            amounts.keys().find(is_gpu).cloned()
        });
        let of_maximum = || {
            let names = self.overrides.resources.as_ref()?.max.keys();
            names.into_iter().find(is_gpu).cloned()
        };
        of_template
            .or_else(of_maximum)
            .unwrap_or_else(|| "nvidia.com/gpu".to_owned())
    }

    fn privileged(&self, wishes: &mut Wishes) {
        wishes.security.insert("privileged".into(), json!(true));
        // The API server refuses the two together.
        if at(
            self.container,
            &["securityContext", "allowPrivilegeEscalation"],
        ) == Some(&json!(false))
        {
            wishes
                .security
                .insert("allowPrivilegeEscalation".into(), json!(true));
        }
    }

    fn user(&self, value: &str, wishes: &mut Wishes) -> Result<(), Refusal> {
        // Kubernetes takes no number beyond that of 31 bits.
        let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0);
        let (user, group) = match value.split_once(':') {
            Some((user, group)) => (number(user), Some(number(group))),
            None => (number(value), None),
        };
        let user = user.ok_or("names cannot be looked up here; give the number of the user")?;
        if user == 0 && self.non_root() {
            return Err("the template asks for a user other than root (runAsNonRoot)".into());
        }
        if group == Some(None) {
            return Err("names cannot be looked up here; give the number of the group".into());
        }
        wishes.security.insert("runAsUser".into(), json!(user));
        if let Some(group) = group.flatten() {
            wishes.security.insert("runAsGroup".into(), json!(group));
        }
        Ok(())
    }

    fn non_root(&self) -> bool {
        let path = ["securityContext", "runAsNonRoot"];
        at(self.container, &path).or(at(self.pod, &path)) == Some(&Value::Bool(true))
    }
}

/// `--privileged=false` and the like.
fn asks_for_nothing(flag: &Flag) -> bool {
    ["privileged", "read-only"].contains(&flag.name.as_str())
        && flag.value.as_deref() == Some("false")
}

fn variable(assignment: &str, wishes: &mut Wishes) -> Result<(), Refusal> {
    let Some((name, value)) = assignment.split_once('=') else {
        return Err(format!(
            "{assignment:?} has no value, and there is no host to take it from"
        ));
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its name is no name of an environment variable".into());
    }
    if assignment.len() > LONGEST_VARIABLE {
        return Err(format!(
            "{name} is longer than {LONGEST_VARIABLE} bytes, and no process is started with it"
        ));
    }
    if name.starts_with("TRAINYARD_") {
        return Err(format!("{name}: TRAINYARD_ is the executor's own prefix"));
    }
    wishes.env.push((name.to_owned(), value.to_owned()));
    Ok(())
}

/// A namespace of the host, or what every pod has anyway.
fn namespace(value: &str, own: &[&str], field: &str, wishes: &mut Wishes) -> Result<(), Refusal> {
    match value {
        "host" => {
            wishes.pod.insert(field.to_owned(), json!(true));
            Ok(())
        }
        own_word if own.contains(&own_word) => Ok(()),
        _ => Err("a pod has its own or the host's, nothing else".into()),
    }
}

fn capability(value: &str) -> Result<String, Refusal> {
    let upper = value.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
        return Err("its value is no capability".into());
    }
    Ok(name.to_owned())
}

/// A size as docker reads it: `8g`, `512m`, `1.5g`, `64k`, `1073741824b`; powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &lower[number.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut size = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let digits: u64 = fraction.get(..fraction.len().min(6))?.parse().ok()?;
        let parts = 10_u64.pow(u32::try_from(fraction.len().min(6)).ok()?);
        size = size.checked_add(digits.checked_mul(factor)? / parts)?;
    }
    Some(size).filter(|size| *size > 0)
}

fn as_amount(bytes: u64) -> Quantity {
    Quantity::whole(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// A size in bytes as Kubernetes writes it.
pub(super) fn as_quantity(bytes: u64) -> String {
    as_amount(bytes).to_string()
}

#[cfg(test)]
mod tests;
