//! Which addresses of one subnet are in use.
//!
//! Pure: time comes in as an argument. A released address rests for a moment before it is given to
//! the next container, because the interface that had it lives until the kernel has taken down the
//! old namespace; without a rest two ports of a bridge could claim it.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::subnet::Ipv4Net;

/// How long a released address rests while others are free.
const REST: Duration = Duration::from_secs(2);

/// The addresses of one subnet.
#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Ipv4Net,
    /// Where addresses that nobody asked for by value come from.
    range: Ipv4Net,
    used: BTreeSet<u32>,
    /// Oldest release first.
    resting: VecDeque<(Instant, u32)>,
}

/// Why an address cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeError {
    /// It is outside the subnet, or names the subnet or its broadcast.
    Outside,
    /// Somebody has it.
    InUse,
}

impl AddressPool {
    /// A pool in which the subnet's own and its broadcast address and `reserved` are taken.
    pub(crate) fn new(
        subnet: Ipv4Net,
        range: Option<Ipv4Net>,
        reserved: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Self {
        let mut used: BTreeSet<u32> = reserved.into_iter().map(Ipv4Addr::to_bits).collect();
        used.insert(subnet.network().to_bits());
        used.insert(subnet.broadcast().to_bits());
        Self { subnet, range: range.unwrap_or(subnet), used, resting: VecDeque::new() }
    }

    /// Takes the lowest free address, or none if all are in use.
    pub(crate) fn allocate(&mut self, now: Instant) -> Option<Ipv4Addr> {
        while self.resting.front().is_some_and(|(since, _)| now.duration_since(*since) >= REST) {
            self.resting.pop_front();
        }
        let resting: BTreeSet<u32> = self.resting.iter().map(|(_, address)| *address).collect();
        let address = match self.lowest_free(&resting) {
            Some(address) => address,
            // Better the one that rested longest than none.
            None => {
                let range = self.range;
                let at = self.resting.iter().position(|(_, address)| {
                    range.contains(Ipv4Addr::from_bits(*address)) && !self.used.contains(address)
                })?;
                self.resting.remove(at)?.1
            }
        };
        self.used.insert(address);
        Some(Ipv4Addr::from_bits(address))
    }

    fn lowest_free(&self, resting: &BTreeSet<u32>) -> Option<u32> {
        let first = self.range.network().to_bits();
        let last = self.range.broadcast().to_bits();
        let mut candidate = Some(first);
        // Both sets are sorted, so one walk over what is taken finds the first gap.
        let mut used = self.used.range(first..=last).peekable();
        let mut rests = resting.range(first..=last).peekable();
        while let Some(address) = candidate {
            while used.next_if(|taken| **taken < address).is_some() {}
            while rests.next_if(|taken| **taken < address).is_some() {}
            let taken = used.peek() == Some(&&address) || rests.peek() == Some(&&address);
            if !taken {
                return Some(address);
            }
            candidate = address.checked_add(1).filter(|next| *next <= last);
        }
        None
    }

    /// Takes this very address.
    pub(crate) fn take(&mut self, address: Ipv4Addr) -> Result<(), TakeError> {
        if !self.subnet.contains(address)
            || address == self.subnet.network()
            || address == self.subnet.broadcast()
        {
            return Err(TakeError::Outside);
        }
        if !self.used.insert(address.to_bits()) {
            return Err(TakeError::InUse);
        }
        self.resting.retain(|(_, resting)| *resting != address.to_bits());
        Ok(())
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: Ipv4Addr, now: Instant) {
        let edge = address == self.subnet.network() || address == self.subnet.broadcast();
        if !edge && self.used.remove(&address.to_bits()) {
            self.resting.push_back((now, address.to_bits()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> AddressPool {
        let subnet: Ipv4Net = subnet.parse().unwrap();
        let gateway = Ipv4Addr::from_bits(subnet.network().to_bits() + 1);
        AddressPool::new(subnet, range.map(|range| range.parse().unwrap()), [gateway])
    }

    #[test]
    fn lowest_first_and_a_rest_after_release() {
        let now = Instant::now();
        let mut pool = pool("172.17.0.0/16", None);
        let first = pool.allocate(now).unwrap();
        assert_eq!(first, Ipv4Addr::new(172, 17, 0, 2));
        pool.release(first, now);
        assert_eq!(pool.allocate(now), Some(Ipv4Addr::new(172, 17, 0, 3)));
        assert_eq!(pool.allocate(now + REST), Some(first));
    }

    #[test]
    fn a_small_subnet_reuses_what_rests() {
        let now = Instant::now();
        let mut pool = pool("10.0.0.0/30", None);
        let only = pool.allocate(now).unwrap();
        assert_eq!(pool.allocate(now), None);
        pool.release(only, now);
        assert_eq!(pool.allocate(now), Some(only));
    }

    #[test]
    fn fixed_addresses() {
        let now = Instant::now();
        let mut pool = pool("10.0.0.0/24", Some("10.0.0.128/25"));
        assert_eq!(pool.allocate(now), Some(Ipv4Addr::new(10, 0, 0, 128)));
        assert_eq!(pool.take(Ipv4Addr::new(10, 0, 0, 9)), Ok(()));
        assert_eq!(pool.take(Ipv4Addr::new(10, 0, 0, 9)), Err(TakeError::InUse));
        assert_eq!(pool.take(Ipv4Addr::new(10, 0, 0, 1)), Err(TakeError::InUse));
        for outside in [0, 255] {
            assert_eq!(pool.take(Ipv4Addr::new(10, 0, 0, outside)), Err(TakeError::Outside));
        }
        assert_eq!(pool.take(Ipv4Addr::new(10, 0, 1, 9)), Err(TakeError::Outside));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate,
        Take(u8),
        Release(usize),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Allocate),
            1 => any::<u8>().prop_map(Step::Take),
            3 => any::<usize>().prop_map(Step::Release),
            1 => (0_u64..4000).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn never_hands_out_an_address_twice(prefix in 24_u8..=30, steps in steps()) {
            let subnet = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), prefix);
            let mut pool = pool(&subnet.to_string(), None);
            let capacity = (1_usize << (32 - prefix)) - 3;
            let mut now = Instant::now();
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for step in steps {
                match step {
                    Step::Allocate => match pool.allocate(now) {
                        Some(address) => held.push(address),
                        None => prop_assert_eq!(held.len(), capacity),
                    },
                    Step::Take(last) => {
                        let address = Ipv4Addr::new(10, 0, 0, last);
                        if pool.take(address).is_ok() {
                            held.push(address);
                        }
                    }
                    Step::Release(at) if !held.is_empty() => {
                        let address = held.swap_remove(at % held.len());
                        pool.release(address, now);
                    }
                    Step::Release(_) => {}
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                let distinct: HashSet<_> = held.iter().collect();
                prop_assert_eq!(distinct.len(), held.len());
                for address in &held {
                    prop_assert!(subnet.contains(*address));
                    prop_assert!(*address != subnet.network() && *address != subnet.broadcast());
                    prop_assert!(*address != Ipv4Addr::new(10, 0, 0, 1));
                }
            }
        }
    }
}
