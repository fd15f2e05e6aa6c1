//! What an image runs by itself, for queues with `useEntrypoint`. Without it nothing can be made of a task: unlike the
//! image check, a registry that does not answer holds up the task, though no other one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;

use super::{Asker, Images, PATIENCE, Puller, waker};
use crate::controller::admit::Waiting;
use crate::controller::fault;
use crate::controller::scene::Scene;
use crate::image::{Answer, Command, Finding};
use crate::render::{OwnCommand, Rendered, Runs};

/// How often it is looked whether an answer is there, and for how long: somewhat longer than a lookup may take.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 120;

/// What is said of a registry that has said nothing.
const SILENT: &str = "its registry has not answered yet";

/// What is known of the own command of a task's image.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::controller) enum Asked {
    Known(Command),
    /// Not known yet: its queue waits a moment.
    NotYet,
    /// Not known, and the others go.
    Waits(Waiting),
}

/// What is rendered for a queue: the task's code, or the image's own command as far as it is known.
pub(in crate::controller) fn runs(use_entrypoint: bool, own: Option<&Command>) -> Runs<'_> {
    if !use_entrypoint {
        return Runs::Code;
    }
    Runs::Image(own.map(|command| OwnCommand {
        entrypoint: &command.entrypoint,
        cmd: &command.cmd,
    }))
}

/// What is said of a task of such a queue that there is nothing to run for.
pub(in crate::controller) fn without_command(image: &str) -> String {
    format!("image {image} has neither ENTRYPOINT nor CMD, and the template gives no command")
}

/// The own command of the image of this Job.
pub(in crate::controller) fn own_command(scene: &Scene<'_>, job: &Rendered) -> Asked {
    let pod = &job.job["spec"]["template"]["spec"];
    let (namespace, told) = waker(scene);
    let images = &scene.context.images;
    means(
        &job.image,
        images.command(&namespace, pod, &job.image, &told),
    )
}

fn means(image: &str, answer: Answer<Command>) -> Asked {
    let waits = |why: &str| {
        let message = format!(
            "what image {image} runs by itself (useEntrypoint) is not known: {why} \
             (hint: with command in the template nothing is asked)"
        );
        Asked::Waits(Waiting::new("ImageCommandUnknown", message))
    };
    match answer {
        Answer::Known(Finding::There(command)) => Asked::Known(command),
        Answer::Known(Finding::Refused(why) | Finding::Unknown(why)) => waits(&why),
        Answer::Pending(asked) if asked < PATIENCE => Asked::NotYet,
        Answer::Pending(_) => waits(SILENT),
    }
}

impl Images {
    /// What is known of the own command of an image; `told` is notified when more is.
    fn command(
        &self,
        namespace: &str,
        pod: &Value,
        image: &str,
        told: &Arc<Notify>,
    ) -> Answer<Command> {
        let puller = Puller::of(namespace, pod, image);
        self.commands.ask(&puller.question(), told, || {
            let asker = self.asker.clone();
            async move { asker.command(puller).await }
        })
    }

    /// The same, waited for.
    pub(in crate::controller) async fn command_now(
        &self,
        namespace: &str,
        pod: &Value,
        image: &str,
    ) -> Finding<Command> {
        let told = Arc::new(Notify::new());
        for _ in 0..LOOKS {
            if let Answer::Known(finding) = self.command(namespace, pod, image, &told) {
                return finding;
            }
            // Who has asked first is told; that may have been another one.
            tokio::time::sleep(LOOK).await;
        }
        Finding::Unknown(SILENT.to_owned())
    }

    /// Waits until all that was asked about commands is answered; whether more is known then.
    pub(in crate::controller) async fn settle(&self) -> bool {
        for look in 0..LOOKS {
            if !self.commands.is_asking() {
                return look > 0;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }
}

impl Asker {
    async fn command(&self, puller: Puller) -> Finding<Command> {
        match self.question(puller).await {
            Ok(question) => {
                let platforms = question.platforms.as_deref();
                let registry = &question.registry;
                let found = registry
                    .command(&question.reference, &question.keys, platforms)
                    .await;
                fault::point!("image/command-read");
                found
            }
            Err(finding) => finding,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_be_read_holds_up_its_task_alone() {
        let known = Command {
            entrypoint: vec!["/run".to_owned()],
            cmd: Vec::new(),
        };
        let found = Answer::Known(Finding::There(known.clone()));
        assert_eq!(means("x:1", found), Asked::Known(known));
        assert_eq!(means("x:1", Answer::Pending(Duration::ZERO)), Asked::NotYet);
        for (answer, wanted) in [
            (
                Answer::Known(Finding::Unknown("it is down".into())),
                "it is down",
            ),
            (
                Answer::Known(Finding::Refused("it is gone".into())),
                "it is gone",
            ),
            (Answer::Pending(PATIENCE), "has not answered yet"),
        ] {
            let Asked::Waits(waiting) = means("x:1", answer) else {
                panic!("the task waits: {wanted}")
            };
            assert_eq!(waiting.reason, "ImageCommandUnknown");
            assert!(
                waiting.message.contains("x:1") && waiting.message.contains(wanted),
                "{waiting:?}"
            );
        }
    }

    #[test]
    fn what_is_rendered_follows_the_queue() {
        let command = Command::default();
        assert_eq!(runs(false, Some(&command)), Runs::Code);
        assert_eq!(runs(true, None), Runs::Image(None));
        let own = OwnCommand {
            entrypoint: &[],
            cmd: &[],
        };
        assert_eq!(runs(true, Some(&command)), Runs::Image(Some(own)));
    }
}
