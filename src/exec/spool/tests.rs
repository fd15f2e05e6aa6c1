use super::*;

fn spool() -> (tempfile::TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool")).unwrap();
    (folder, spool)
}

#[test]
fn stamps_tell_how_long_the_log_was_and_when() {
    let (_folder, spool) = spool();
    assert!(spool.stamps().is_empty());
    spool.line("one").unwrap();
    spool.stamp(100).unwrap();
    spool.line("two").unwrap();
    spool.stamp(250).unwrap();
    assert_eq!(spool.stamps(), [(4, 100), (8, 250)]);
}

#[test]
fn stamps_of_a_long_run_stay_few_and_the_last_is_kept() {
    let (_folder, spool) = spool();
    for now in 0..10_000 {
        spool.line("x").unwrap();
        spool.stamp(now).unwrap();
    }
    let stamps = spool.stamps();
    assert!(stamps.len() < 8000, "{}", stamps.len());
    assert_eq!(stamps.last(), Some(&(20_000, 9_999)));
    assert!(stamps.is_sorted());
}

#[test]
fn what_a_task_makes_too_long_beside_the_log_is_not_read() {
    let (_folder, spool) = spool();
    let long = vec![b'\n'; usize::try_from(BESIDE_BYTES).unwrap() + 1];
    fs::write(spool.folder.join("times"), &long).unwrap();
    assert!(spool.stamps().is_empty());
    spool.line("one").unwrap();
    spool.stamp(100).unwrap();
    spool.stamp(101).unwrap();
    assert_eq!(spool.stamps(), [(4, 101)], "it is begun anew");
    fs::write(spool.folder.join("ack.json"), &long).unwrap();
    let error = spool.acknowledged().unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn pipes_that_a_task_puts_beside_the_log_hold_nobody_up() {
    let (_folder, spool) = spool();
    spool.line("one").unwrap();
    for name in ["times", "ack.json", "lock"] {
        nix::unistd::mkfifo(&spool.folder.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let (told, outcome) = std::sync::mpsc::channel();
    // If it waits, it waits in a thread that the test leaves behind.
    std::thread::spawn(move || {
        let refused = [
            spool.acknowledged().is_err(),
            spool.stamp(100).is_err(),
            spool.locked().is_err(),
        ];
        // Ours takes the place of what was put there.
        spool.acknowledge(&Acknowledged::default()).unwrap();
        let known = spool.acknowledged().unwrap();
        let _ = told.send((spool.stamps(), refused, known));
    });
    let outcome = outcome.recv_timeout(std::time::Duration::from_secs(20));
    let expected = (Vec::new(), [true; 3], Acknowledged::default());
    assert_eq!(outcome, Ok(expected));
}

#[test]
fn lines_and_bytes_of_other_handles_are_appended() {
    let (_folder, spool) = spool();
    spool.line("one").unwrap();
    spool.handle().unwrap().write_all(b"two").unwrap();
    spool.line("").unwrap();
    let mut bytes = Vec::new();
    spool.read(0, 100, &mut bytes).unwrap();
    assert_eq!(bytes, b"one\ntwo\n");
    spool.note("a remark").unwrap();
    spool.handle().unwrap().write_all(b"unfinished").unwrap();
    spool.note("another").unwrap();
    spool.read(8, 100, &mut bytes).unwrap();
    assert_eq!(
        bytes,
        b"trainyard: a remark\nunfinished\ntrainyard: another\n"
    );
    spool.read(4, 3, &mut bytes).unwrap();
    assert_eq!(bytes, b"two");
}

#[test]
fn an_acknowledgement_is_read_back_as_written() {
    let (_folder, spool) = spool();
    assert_eq!(spool.acknowledged().unwrap(), Acknowledged::default());
    let at = Position {
        offset: 7,
        continues: true,
    };
    let state = Acknowledged {
        at,
        time: 99,
        sending: vec![Piece {
            from: at,
            to: Position {
                offset: 9,
                continues: false,
            },
            time: 99,
        }],
        ..Default::default()
    };
    spool.acknowledge(&state).unwrap();
    assert_eq!(spool.acknowledged().unwrap(), state);
    fs::write(spool.folder.join("ack.json"), b"{").unwrap();
    assert!(spool.acknowledged().is_err());
}

#[test]
fn freed_space_keeps_length_and_later_bytes() {
    let (_folder, spool) = spool();
    spool.line(&"x".repeat(20_000)).unwrap();
    let trace = spool.trace(8192).unwrap();
    match spool.free_before(8192) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EOPNOTSUPP as i32) => {
            return;
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!(spool.length().unwrap(), 20_001);
    let mut bytes = Vec::new();
    spool.read(8192 - 66, 4, &mut bytes).unwrap();
    assert_eq!(bytes, b"\0\0xx");
    assert!(spool.goes_on_from(&trace).unwrap());
}

#[test]
fn a_log_that_was_begun_anew_is_recognized_also_when_it_has_grown() {
    let (_folder, spool) = spool();
    spool.line("the first log").unwrap();
    let trace = spool.trace(spool.length().unwrap()).unwrap();
    spool.line("goes on").unwrap();
    assert!(spool.goes_on_from(&trace).unwrap());
    File::create(spool.folder.join("log")).unwrap();
    assert!(!spool.goes_on_from(&trace).unwrap());
    spool
        .line("another log that is longer than the first")
        .unwrap();
    assert!(!spool.goes_on_from(&trace).unwrap());
    assert!(
        spool.goes_on_from(&Trace::default()).unwrap(),
        "nothing was read yet"
    );
}

#[test]
fn the_lock_tells_whether_its_holder_lives() {
    let (_folder, spool) = spool();
    assert!(!spool.locked().unwrap());
    let lock = spool.lock().unwrap();
    assert!(spool.locked().unwrap());
    assert!(spool.lock().is_err());
    drop(lock);
    assert!(!spool.locked().unwrap());
}

#[test]
fn the_end_is_the_length_at_that_moment() {
    let (_folder, spool) = spool();
    assert!(!spool.finished());
    spool.line("last").unwrap();
    assert_eq!(spool.finish().unwrap(), 5);
    assert!(spool.finished());
}
