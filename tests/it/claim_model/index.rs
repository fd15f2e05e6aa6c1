//! What an exploration knows already: states by number, and labels.
//!
//! The collections of the standard library are as slow as all that is generic in a debug build, and these two are asked
//! with each of a hundred million transitions.
#![expect(clippy::unwrap_used, reason = "numbers of states are small")]

use std::collections::BTreeSet;
use std::hash::Hasher;

use super::world::Packed;

/// Quick, and good enough for states.
#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 29;
    }
}

/// Numbers of states, in the order in which they were first asked for.
pub struct Index {
    /// The states by number.
    known: Vec<Packed>,
    /// Numbers of states, each at the place that its state leads to, or behind it; half of them are free at least.
    table: Vec<u32>,
}

/// A place of the table that holds no number.
const FREE: u32 = u32::MAX;

#[expect(
    clippy::cast_possible_truncation,
    reason = "any part of it is as good as the whole"
)]
fn mixed(state: &Packed) -> usize {
    let mut mix = Mix(0);
    mix.write_u64(state[0]);
    mix.write_u64(state[1]);
    mix.write_u64(state[2]);
    mix.write_u64(state[3]);
    mix.finish() as usize
}

impl Index {
    pub fn new() -> Self {
        Self {
            known: Vec::new(),
            table: vec![FREE; 1 << 16],
        }
    }

    /// The number of a state, and whether it is new.
    pub fn number(&mut self, state: Packed) -> (u32, bool) {
        if self.known.len() * 2 >= self.table.len() {
            self.grow();
        }
        let (known, table) = (self.known.as_slice(), self.table.as_mut_slice());
        let mask = table.len() - 1;
        let mut at = mixed(&state) & mask;
        while table[at] != FREE {
            let other = &known[table[at] as usize];
            if other[0] == state[0]
                && other[1] == state[1]
                && other[2] == state[2]
                && other[3] == state[3]
            {
                return (table[at], false);
            }
            at = (at + 1) & mask;
        }
        let number = u32::try_from(known.len()).unwrap();
        table[at] = number;
        self.known.push(state);
        (number, true)
    }

    fn grow(&mut self) {
        self.table = vec![FREE; self.table.len() * 2];
        let (known, table) = (self.known.as_slice(), self.table.as_mut_slice());
        let mask = table.len() - 1;
        let mut number = 0;
        while number < known.len() {
            let mut at = mixed(&known[number]) & mask;
            while table[at] != FREE {
                at = (at + 1) & mask;
            }
            table[at] = u32::try_from(number).unwrap();
            number += 1;
        }
    }
}

/// What transitions are called, and what else was reached.
pub struct Labels {
    pub reached: BTreeSet<&'static str>,
    /// Addresses of texts that are in `reached`, each where its own address leads: quicker to compare.
    seen: Vec<usize>,
}

impl Labels {
    const PLACES: usize = 4096;

    pub fn new() -> Self {
        Self {
            reached: BTreeSet::new(),
            seen: vec![0; Self::PLACES],
        }
    }

    pub fn reach(&mut self, label: &'static str) {
        let address = label.as_ptr().addr();
        let place = &mut self.seen.as_mut_slice()[address % Self::PLACES];
        if *place != address {
            *place = address;
            self.reached.insert(label);
        }
    }
}
