use super::*;
use crate::task::Status;

fn exited_with(exit: Exit) -> Outcome {
    outcome(
        &End::Exited {
            exit,
            interrupt: None,
            killed: false,
        },
        Memory::default(),
        None,
    )
}

#[test]
fn success_is_completed_and_exit_code_0() {
    let outcome = exited_with(Exit::Code(0));
    assert_eq!((outcome.report, outcome.code), (Report::Completed, 0));
    assert_eq!(
        outcome.status_message(&["line".into()]),
        "completed successfully"
    );
}

#[test]
fn a_failure_keeps_its_exit_code_and_shows_its_last_lines() {
    let outcome = exited_with(Exit::Code(3));
    assert_eq!((outcome.report, outcome.code), (Report::Failed, 3));
    let lines = ["Traceback".to_owned(), "ValueError: no".to_owned()];
    assert_eq!(
        outcome.status_message(&lines),
        "the process ended with exit code 3; last lines:\nTraceback\nValueError: no"
    );
    let termination = outcome.termination(&lines, true);
    assert_eq!((termination.exit_code, termination.signal), (Some(3), None));
}

#[test]
fn a_code_from_our_own_range_is_the_users_and_told_apart_by_the_termination_message() {
    let outcome = exited_with(Exit::Code(pod::exit::LOST_RACE));
    assert_eq!(outcome.code, pod::exit::LOST_RACE);
    let termination = outcome.termination(&[], true);
    assert_eq!(
        (termination.outcome.as_str(), termination.exit_code),
        ("failed", Some(pod::exit::LOST_RACE))
    );
}

#[test]
fn a_signal_is_named_and_becomes_128_and_its_number() {
    let outcome = exited_with(Exit::Signal(11));
    assert_eq!(outcome.code, 139);
    assert_eq!(
        outcome.message,
        "the process was ended by signal SIGSEGV (invalid memory access)"
    );
    assert_eq!(
        exited_with(Exit::Signal(34)).message,
        "the process was ended by signal 34"
    );
}

#[test]
fn a_kill_for_memory_names_limit_and_node() {
    let memory = Memory {
        kills: 1,
        limit: Some(256 * 1024 * 1024),
    };
    let end = End::Exited {
        exit: Exit::Signal(9),
        interrupt: None,
        killed: false,
    };
    let message = outcome(&end, memory, Some("node-1")).message;
    assert_eq!(
        message,
        "the process was ended by signal SIGKILL: out of memory \
         (OOMKilled; the container's limit is 256 MiB; on node \"node-1\")"
    );
    let unlimited = Memory {
        limit: None,
        ..memory
    };
    assert_eq!(
        outcome(&end, unlimited, None).message,
        "the process was ended by signal SIGKILL: out of memory (OOMKilled)"
    );
    let end = End::Exited {
        exit: Exit::Code(1),
        interrupt: None,
        killed: false,
    };
    assert!(
        outcome(&end, memory, Some("node-1"))
            .message
            .contains("after a child ran out of memory (OOMKilled; ")
    );
}

#[test]
fn preparations_that_ran_out_of_memory_say_so_however_much_else_they_say() {
    let memory = Memory {
        kills: 1,
        limit: Some(256 * 1024 * 1024),
    };
    let told = |sentence: &str| {
        let end = End::Unprepared(sentence.to_owned());
        outcome(&end, memory, Some("node-1")).message
    };
    let killed = "; a process ran out of memory \
        (OOMKilled; the container's limit is 256 MiB; on node \"node-1\")";
    assert_eq!(told("uv failed"), format!("uv failed{killed}"));
    let long = told(&"é".repeat(5000));
    assert!(
        long.len() <= SENTENCE_BYTES && long.ends_with(killed),
        "{long}"
    );
}

#[test]
fn a_run_that_failed_is_called_by_its_category_behind_the_words_of_an_agent() {
    let killed = Memory {
        kills: 1,
        limit: None,
    };
    let exited = |exit, memory| {
        let end = End::Exited {
            exit,
            interrupt: None,
            killed: false,
        };
        outcome(&end, memory, None)
    };
    let none = Memory::default();
    let unprepared = End::Unprepared("no commit".into());
    let fault = Xid {
        gpu: Some(0),
        number: 79,
    };
    for (outcome, reason) in [
        (
            exited(Exit::Code(3), none),
            "worker execution exit code 3, trainyard: exit-code",
        ),
        (
            exited(Exit::Signal(11), none),
            "worker execution signal SIGSEGV (invalid memory access), trainyard: signal",
        ),
        (
            exited(Exit::Signal(9), killed),
            "worker execution signal SIGKILL, trainyard: out-of-memory",
        ),
        (
            exited(Exit::Code(1), killed),
            "worker execution exit code 1, trainyard: out-of-memory",
        ),
        (
            exited(Exit::Code(1), none).with_faults(&[fault]),
            "worker execution exit code 1, trainyard: gpu-fault",
        ),
        (
            outcome(&unprepared, none, None),
            "preparation failed, trainyard: not-prepared",
        ),
        (
            outcome(&unprepared, killed, None),
            "preparation failed, trainyard: out-of-memory",
        ),
        (
            outcome(&End::Unstartable("no such file".into()), none, None),
            "start failed, trainyard: not-prepared",
        ),
        (exited(Exit::Code(0), none), "worker execution done"),
        (
            outcome(&End::Interrupted(Interrupt::Abort), none, None),
            "user abort",
        ),
    ] {
        assert_eq!(outcome.status_reason(), reason);
    }
}

#[test]
fn faults_of_gpus_are_told_where_the_process_failed() {
    let of = |number| Xid {
        gpu: Some(0),
        number,
    };
    let failed = exited_with(Exit::Code(1)).with_faults(&[of(31)]);
    assert!(
        failed
            .message
            .starts_with("the process ended with exit code 1; GPU 0 reported XID 31 ("),
        "{}",
        failed.message
    );
    assert_eq!(failed.termination(&[], true).xid, None);
    let lost = exited_with(Exit::Code(1)).with_faults(&[of(31), of(79)]);
    assert!(
        lost.message
            .contains("XID 79 (the GPU has fallen off the bus): the GPU itself is at fault"),
        "{}",
        lost.message
    );
    assert_eq!(lost.termination(&[], true).xid, Some(79));
    let good = exited_with(Exit::Code(0)).with_faults(&[of(79)]);
    assert_eq!(good.message, "completed successfully");
    assert_eq!(good.termination(&[], true).xid, None);
    let after_a_signal = |exit| {
        let outcome = outcome(&End::Signalled(exit), Memory::default(), None);
        outcome.with_faults(&[of(79)]).termination(&[], false)
    };
    let lost = after_a_signal(Exit::Signal(3));
    assert!(lost.signalled && lost.message.contains("XID 79"));
    assert_eq!(lost.xid, Some(79));
    assert_eq!(after_a_signal(Exit::Code(0)).xid, None);
    let interrupted = outcome(
        &End::Exited {
            exit: Exit::Signal(15),
            interrupt: Some(Interrupt::Shutdown),
            killed: false,
        },
        Memory::default(),
        None,
    );
    let interrupted = interrupted.with_faults(&[of(79)]);
    assert_eq!(interrupted.termination(&[], false).xid, None);
}

#[test]
fn an_abort_stops_whatever_the_process_made_of_it() {
    for exit in [
        Exit::Code(0),
        Exit::Code(1),
        Exit::Signal(15),
        Exit::Signal(9),
    ] {
        let outcome = outcome(
            &End::Exited {
                exit,
                interrupt: Some(Interrupt::Abort),
                killed: false,
            },
            Memory::default(),
            None,
        );
        assert_eq!(
            (outcome.report, outcome.code),
            (Report::Stopped, pod::exit::INTERRUPTED)
        );
    }
}

#[test]
fn an_interruption_leaves_the_status_to_the_controller() {
    for interrupt in [
        Interrupt::Shutdown,
        Interrupt::Foreign("x".into()),
        Interrupt::Ended(Status::Failed),
    ] {
        let outcome = outcome(&End::Interrupted(interrupt), Memory::default(), None);
        assert_eq!(
            (outcome.report, outcome.code),
            (Report::Nothing, pod::exit::INTERRUPTED)
        );
    }
    assert!(Interrupt::Ended(Status::Created).disowns());
    assert!(!Interrupt::Ended(Status::Stopped).disowns());
}

#[test]
fn an_end_after_a_signal_is_told_and_left_to_who_sees_the_pod() {
    for (exit, word, code) in [
        (Exit::Signal(3), "failed", 131),
        (Exit::Code(1), "failed", 1),
        (Exit::Code(0), "completed", 0),
    ] {
        let outcome = outcome(&End::Signalled(exit), Memory::default(), None);
        assert_eq!((outcome.report, outcome.code), (Report::Nothing, code));
        let told = outcome.termination(&[], false);
        assert!(told.signalled && !told.reported);
        assert_eq!(told.outcome, word);
    }
    assert!(
        !exited_with(Exit::Signal(3))
            .termination(&[], true)
            .signalled
    );
}

#[test]
fn what_could_not_be_prepared_fails_with_its_sentence() {
    let outcome = outcome(
        &End::Unprepared("commit abc is not in the repository".into()),
        Memory::default(),
        None,
    );
    assert_eq!(
        (outcome.report, outcome.code),
        (Report::Failed, pod::exit::PREPARE_FAILED)
    );
    assert_eq!(
        outcome.status_message(&["line".into()]),
        "commit abc is not in the repository"
    );
}

#[test]
fn the_termination_message_fits_into_what_kubernetes_keeps() {
    let lines: Vec<String> = (0..500).map(|n| format!("\"é\t line {n}")).collect();
    let outcome = outcome(&End::Unprepared("é".repeat(5000)), Memory::default(), None);
    let message = serde_json::to_string(&outcome.termination(&lines, true)).unwrap();
    assert!(message.len() <= 4096, "{}", message.len());
    assert!(message.contains("line 499"));
    assert_eq!(newest(&["é".repeat(100)], 50)[0].len(), 49);
}
