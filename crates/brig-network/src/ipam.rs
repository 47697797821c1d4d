//! Which addresses of one subnet are in use.
//!
//! Pure: time comes in as an argument. A released address rests for a moment before it is given to
//! the next container, because the interface that had it lives until the kernel has taken down the
//! old namespace; without a rest two ports of a bridge could claim it.

use std::collections::{BTreeSet, VecDeque};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use crate::subnet::{Ipv4Net, Ipv6Net};

/// How long a released address rests while others are free.
const REST: Duration = Duration::from_secs(2);

/// An address of either family as a number.
pub(crate) trait Address: Copy {
    fn number(self) -> u128;
    fn from_number(number: u128) -> Option<Self>;
}

impl Address for Ipv4Addr {
    fn number(self) -> u128 {
        self.to_bits().into()
    }

    fn from_number(number: u128) -> Option<Self> {
        u32::try_from(number).ok().map(Self::from_bits)
    }
}

impl Address for Ipv6Addr {
    fn number(self) -> u128 {
        self.to_bits()
    }

    fn from_number(number: u128) -> Option<Self> {
        Some(Self::from_bits(number))
    }
}

/// The addresses of one subnet.
#[derive(Debug)]
pub(crate) struct AddressPool<A> {
    subnet: RangeInclusive<u128>,
    /// Where addresses that nobody asked for by value come from.
    range: RangeInclusive<u128>,
    /// Addresses of the subnet that nobody can have.
    edges: BTreeSet<u128>,
    used: BTreeSet<u128>,
    /// Oldest release first.
    resting: VecDeque<(Instant, u128)>,
    kind: PhantomData<A>,
}

/// Why an address cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeError {
    /// It is outside the subnet, or names the subnet or its broadcast.
    Outside,
    /// Somebody has it.
    InUse,
}

impl AddressPool<Ipv4Addr> {
    /// A pool in which the subnet's own and its broadcast address and `reserved` are taken.
    pub(crate) fn new(
        subnet: Ipv4Net,
        range: Option<Ipv4Net>,
        reserved: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Self {
        let whole = |net: Ipv4Net| net.network().number()..=net.last().number();
        let edges = [subnet.network(), subnet.last()];
        Self::with(whole(subnet), whole(range.unwrap_or(subnet)), &edges, reserved)
    }
}

impl AddressPool<Ipv6Addr> {
    /// A pool in which the first address, which means any router, and `reserved` are taken.
    pub(crate) fn new(
        subnet: Ipv6Net,
        range: Option<Ipv6Net>,
        reserved: impl IntoIterator<Item = Ipv6Addr>,
    ) -> Self {
        let whole = |net: Ipv6Net| net.network().number()..=net.last().number();
        Self::with(whole(subnet), whole(range.unwrap_or(subnet)), &[subnet.network()], reserved)
    }
}

impl<A: Address> AddressPool<A> {
    fn with(
        subnet: RangeInclusive<u128>,
        range: RangeInclusive<u128>,
        edges: &[A],
        reserved: impl IntoIterator<Item = A>,
    ) -> Self {
        let edges: BTreeSet<u128> = edges.iter().map(|edge| edge.number()).collect();
        let used = reserved.into_iter().map(A::number).chain(edges.iter().copied()).collect();
        Self { subnet, range, edges, used, resting: VecDeque::new(), kind: PhantomData }
    }

    /// Takes the lowest free address, or none if all are in use.
    pub(crate) fn allocate(&mut self, now: Instant) -> Option<A> {
        while self.resting.front().is_some_and(|(since, _)| now.duration_since(*since) >= REST) {
            self.resting.pop_front();
        }
        let resting: BTreeSet<u128> = self.resting.iter().map(|(_, address)| *address).collect();
        let address = match self.lowest_free(&resting) {
            Some(address) => address,
            // Better the one that rested longest than none.
            None => {
                let at = self.resting.iter().position(|(_, address)| {
                    self.range.contains(address) && !self.used.contains(address)
                })?;
                self.resting.remove(at)?.1
            }
        };
        self.used.insert(address);
        A::from_number(address)
    }

    fn lowest_free(&self, resting: &BTreeSet<u128>) -> Option<u128> {
        let last = *self.range.end();
        let mut candidate = Some(*self.range.start());
        // Both sets are sorted, so one walk over what is taken finds the first gap.
        let mut used = self.used.range(self.range.clone()).peekable();
        let mut rests = resting.range(self.range.clone()).peekable();
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
    pub(crate) fn take(&mut self, address: A) -> Result<(), TakeError> {
        let address = address.number();
        if !self.subnet.contains(&address) || self.edges.contains(&address) {
            return Err(TakeError::Outside);
        }
        if !self.used.insert(address) {
            return Err(TakeError::InUse);
        }
        self.resting.retain(|(_, resting)| *resting != address);
        Ok(())
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: A, now: Instant) {
        let address = address.number();
        if !self.edges.contains(&address) && self.used.remove(&address) {
            self.resting.push_back((now, address));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> AddressPool<Ipv4Addr> {
        let subnet: Ipv4Net = subnet.parse().unwrap();
        let gateway = Ipv4Addr::from_bits(subnet.network().to_bits() + 1);
        AddressPool::<Ipv4Addr>::new(subnet, range.map(|range| range.parse().unwrap()), [gateway])
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

    #[test]
    fn the_other_family() {
        let now = Instant::now();
        let subnet: Ipv6Net = "fd00::/64".parse().unwrap();
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let mut pool = AddressPool::<Ipv6Addr>::new(subnet, None, [ip("fd00::1")]);
        assert_eq!(pool.allocate(now), Some(ip("fd00::2")));
        assert_eq!(pool.take(ip("fd00::2")), Err(TakeError::InUse));
        assert_eq!(pool.take(ip("fd00::")), Err(TakeError::Outside));
        assert_eq!(pool.take(ip("fd00::ffff:ffff:ffff:ffff")), Ok(()));
        assert_eq!(pool.take(ip("fd00:0:0:1::1")), Err(TakeError::Outside));
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
                    prop_assert!(*address != subnet.network() && *address != subnet.last());
                    prop_assert!(*address != Ipv4Addr::new(10, 0, 0, 1));
                }
            }
        }
    }
}
