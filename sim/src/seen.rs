//! The set of states that were seen, by their names: open addressing, eight names a cache line or
//! two, nothing that depends on where memory is.

use std::hint::black_box;

use crate::fingerprint::Fingerprint;

/// A set of fingerprints.
#[derive(Debug)]
pub struct Seen {
    /// Zero is an empty place.
    places: Vec<Fingerprint>,
    used: usize,
}

const PLACES_MIN: usize = 1 << 10;

impl Seen {
    /// An empty set.
    pub fn new() -> Self {
        Self { places: vec![0; PLACES_MIN], used: 0 }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many bytes it takes.
    pub const fn bytes(&self) -> usize {
        self.places.len() * size_of::<Fingerprint>()
    }

    /// Whether a state was seen.
    pub fn contains(&self, name: Fingerprint) -> bool {
        self.places[self.place(name)] != 0
    }

    /// Adds a state; false if it was seen before.
    pub fn insert(&mut self, name: Fingerprint) -> bool {
        if self.used * 8 >= self.places.len() * 5 {
            self.grow();
        }
        let place = self.place(name);
        let new = self.places[place] == 0;
        if new {
            self.places[place] = never_zero(name);
            self.used += 1;
        }
        new
    }

    /// Asks memory for where a name would be first, so that it is near when it is looked up.
    pub fn ask(&self, name: Fingerprint) -> Fingerprint {
        self.places[self.first(name)]
    }

    fn first(&self, name: Fingerprint) -> usize {
        // The lowest bits choose the shard, so they say nothing here.
        (name >> 16) as usize & (self.places.len() - 1)
    }

    /// Where a name is, or would be.
    fn place(&self, name: Fingerprint) -> usize {
        let name = never_zero(name);
        let mask = self.places.len() - 1;
        let mut place = self.first(name);
        while self.places[place] != 0 && self.places[place] != name {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        let mut larger = vec![0; self.places.len() * 2];
        // Memory that is new and only read is one page of zeroes; every first write would then make
        // all CPUs forget it.
        larger.fill(black_box(0));
        for name in std::mem::replace(&mut self.places, larger) {
            if name != 0 {
                let place = self.place(name);
                self.places[place] = name;
            }
        }
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::new()
    }
}

const fn never_zero(name: Fingerprint) -> Fingerprint {
    if name == 0 { 1 } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_is_in_and_nothing_else() {
        let mut seen = Seen::new();
        let name = |number: u128| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        for number in 0..100_000 {
            assert!(!seen.contains(name(number)));
            assert!(seen.insert(name(number)));
            assert!(!seen.insert(name(number)));
        }
        assert_eq!(seen.len(), 100_000);
        assert!((0..100_000).all(|number| seen.contains(name(number))));
        assert!((100_000..200_000).all(|number| !seen.contains(name(number))));
    }

    #[test]
    fn names_that_collide_are_told_apart() {
        let mut seen = Seen::new();
        let collide = (0..600_u128).map(|number| number << 80);
        for name in collide.clone() {
            assert!(seen.insert(name + 2));
        }
        assert!(collide.clone().all(|name| seen.contains(name + 2) && !seen.contains(name + 4)));
    }
}
