//! PURE: XID errors, the numbers under which NVIDIA's driver reports faults, in words.

/// A fault that the driver has reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xid {
    /// The GPU, by the number that its graphs have; absent where the driver does not say. A fault of a GPU that is
    /// divided is one of each of its slices that are here.
    pub gpu: Option<u32>,
    pub number: u64,
}

/// Faults that a program brings about by itself, mostly; its GPU is well.
const OF_THE_PROGRAM: [(u64, &str); 7] = [
    (
        13,
        "an exception in the graphics engine, such as an index out of range",
    ),
    (
        31,
        "a page fault: the program used an address that is not its own",
    ),
    (43, "the GPU has stopped working for this program"),
    (
        45,
        "the program's work was cleared away after an earlier fault",
    ),
    (68, "an exception in the video processor"),
    (69, "an error in the class of the graphics engine"),
    (109, "the program did not make way for another in time"),
];

/// Faults of the GPU, its links or its driver.
const OF_THE_GPU: [(u64, &str); 18] = [
    (38, "the driver's firmware has failed"),
    (48, "an uncorrectable memory error (double bit ECC)"),
    (61, "the GPU's microcontroller has met a breakpoint"),
    (62, "the GPU's microcontroller has halted"),
    (63, "a bad part of the memory is being replaced"),
    (64, "a bad part of the memory could not be replaced"),
    (74, "an error of NVLink"),
    (79, "the GPU has fallen off the bus"),
    (92, "many corrected memory errors (single bit ECC)"),
    (94, "a memory error, contained to its program (ECC)"),
    (95, "a memory error, not contained to its program (ECC)"),
    (110, "a security fault of the GPU"),
    (119, "the GPU's system processor does not answer (GSP)"),
    (120, "the GPU's system processor has failed (GSP)"),
    (140, "a memory error that was not recovered (ECC)"),
    (143, "the GPU could not be initialised"),
    (149, "a fault of NVLink"),
    (154, "the GPU has to be reset or its node restarted"),
];

impl Xid {
    /// Whether the GPU itself is at fault, not the program on it. Of an unknown number nothing is claimed.
    pub fn is_of_the_gpu(self) -> bool {
        self.meaning(&OF_THE_GPU).is_some()
    }

    /// `GPU 0 reported XID 79 (the GPU has fallen off the bus)`.
    pub fn describe(self) -> String {
        let gpu = self
            .gpu
            .map_or_else(|| "a GPU".to_owned(), |gpu| format!("GPU {gpu}"));
        let meaning = self
            .meaning(&OF_THE_GPU)
            .or_else(|| self.meaning(&OF_THE_PROGRAM));
        let meaning = meaning
            .map(|meaning| format!(" ({meaning})"))
            .unwrap_or_default();
        format!("{gpu} reported XID {}{meaning}", self.number)
    }

    fn meaning(self, table: &[(u64, &'static str)]) -> Option<&'static str> {
        let known = table.iter().find(|(number, _)| *number == self.number)?;
        Some(known.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_named_and_whose_it_is_is_known() {
        let of = |gpu, number| Xid { gpu, number };
        assert_eq!(
            of(Some(3), 79).describe(),
            "GPU 3 reported XID 79 (the GPU has fallen off the bus)"
        );
        assert_eq!(of(None, 4711).describe(), "a GPU reported XID 4711");
        let page_fault = of(Some(0), 31);
        assert!(page_fault.describe().contains("a page fault"));
        let whose = [79, 31, 4711].map(|number| of(None, number).is_of_the_gpu());
        assert_eq!(whose, [true, false, false]);
    }

    #[test]
    fn no_number_stands_in_both_tables() {
        for (number, _) in OF_THE_PROGRAM {
            let xid = Xid { gpu: None, number };
            assert!(!xid.is_of_the_gpu(), "{number}");
        }
    }
}
