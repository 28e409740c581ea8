//! A guest's memory, as the front end described it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, VolatileMemory};

use super::payload::Segment;
use super::{MapError, Mapping};

/// One region as a vhost-user message names it, all in bytes.
#[derive(Debug, Clone, Copy)]
pub struct RegionSpec {
    /// Guest physical address.
    pub guest: u64,
    /// Length.
    pub len: u64,
    /// Address in the front end's own address space: ring addresses come in these.
    pub user: u64,
    /// Where it begins in its file.
    pub offset: u64,
}

#[derive(Debug)]
struct Region {
    spec: RegionSpec,
    map: Mapping,
}

/// An immutable snapshot of a guest's memory. Requests keep the snapshot that they were parsed with, so that
/// memory is unmapped only when nothing uses it any more.
#[derive(Debug, Default)]
pub struct GuestMemory {
    /// Sorted by guest address, disjoint.
    regions: Vec<Arc<Region>>,
}

/// A range that was found to lie inside one region of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    region: u32,
    offset: usize,
    len: usize,
}

impl GuestMemory {
    /// Regions that a front end may have; what vhost-user back ends usually offer.
    pub const MAX_REGIONS: usize = 509;

    /// Bytes that one guest may have: far more than any has, far less than a process can address.
    pub const MAX_LEN: u64 = 16 << 40;

    /// Maps all regions.
    pub fn new(regions: impl IntoIterator<Item = (RegionSpec, File)>) -> Result<Self, MapError> {
        regions
            .into_iter()
            .try_fold(Self::default(), |memory, (spec, file)| {
                memory.with(spec, file)
            })
    }

    /// The same memory with one more region.
    pub fn with(&self, spec: RegionSpec, file: File) -> Result<Self, MapError> {
        const WHAT: &str = "memory region";
        let count = self.regions.len() + 1;
        if count > Self::MAX_REGIONS {
            return Err(MapError::TooMany(count));
        }
        let wraps =
            spec.guest.checked_add(spec.len).is_none() || spec.user.checked_add(spec.len).is_none();
        if wraps {
            return Err(MapError::Range {
                what: WHAT,
                len: spec.len,
                offset: spec.guest,
            });
        }
        let taken = |r: &&Arc<Region>| {
            spec.guest < r.spec.guest + r.spec.len && r.spec.guest < spec.guest + spec.len
        };
        if let Some(other) = self.regions.iter().find(taken) {
            return Err(MapError::Overlap(spec.guest.max(other.spec.guest)));
        }
        let taken: u64 = self.regions.iter().map(|r| r.spec.len).sum();
        if taken
            .checked_add(spec.len)
            .is_none_or(|sum| sum > Self::MAX_LEN)
        {
            return Err(MapError::TooMuch {
                what: WHAT,
                len: spec.len,
                taken,
                max: Self::MAX_LEN,
            });
        }
        let map = Mapping::new(file, spec.offset, spec.len, WHAT)?;
        let mut regions = self.regions.clone();
        let at = regions.partition_point(|r| r.spec.guest < spec.guest);
        regions.insert(at, Arc::new(Region { spec, map }));
        Ok(Self { regions })
    }

    /// The same memory without one region, which must be named exactly.
    pub fn without(&self, guest: u64, len: u64) -> Result<Self, MapError> {
        let at = self
            .regions
            .iter()
            .position(|r| r.spec.guest == guest && r.spec.len == len)
            .ok_or(MapError::NoRegion { guest, len })?;
        let mut regions = self.regions.clone();
        regions.remove(at);
        Ok(Self { regions })
    }

    /// Whether there is no memory at all.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    fn region_at(&self, guest: u64) -> Option<(usize, &Region)> {
        let index = self
            .regions
            .partition_point(|r| r.spec.guest <= guest)
            .checked_sub(1)?;
        let region = self.regions.get(index)?;
        (guest - region.spec.guest < region.spec.len).then_some((index, region.as_ref()))
    }

    /// The place behind an address of the front end's address space; it must lie in one region.
    pub fn user_place(&self, user: u64, len: usize) -> Option<Place> {
        self.regions.iter().enumerate().find_map(|(index, region)| {
            let offset = user.checked_sub(region.spec.user)?;
            let end = offset.checked_add(len as u64)?;
            (end <= region.spec.len).then_some(Place {
                region: u32::try_from(index).ok()?,
                offset: usize::try_from(offset).ok()?,
                len,
            })
        })
    }

    /// The place behind a guest address; it must lie in one region.
    pub fn guest_place(&self, guest: u64, len: usize) -> Option<Place> {
        let (index, region) = self.region_at(guest)?;
        let offset = guest - region.spec.guest;
        (offset.checked_add(len as u64)? <= region.spec.len).then_some(Place {
            region: u32::try_from(index).ok()?,
            offset: usize::try_from(offset).ok()?,
            len,
        })
    }

    /// Guest address of a place.
    pub fn guest_address(&self, place: Place) -> Option<u64> {
        let region = self.regions.get(place.region as usize)?;
        Some(region.spec.guest + place.offset as u64)
    }

    /// Splits a guest range into pieces of regions and hands each to `push`; adjacent regions are crossed.
    pub fn resolve(&self, mut guest: u64, mut len: u64, mut push: impl FnMut(Place)) -> Option<()> {
        while len > 0 {
            let (index, region) = self.region_at(guest)?;
            let offset = guest - region.spec.guest;
            let here = len.min(region.spec.len - offset);
            push(Place {
                region: u32::try_from(index).ok()?,
                offset: usize::try_from(offset).ok()?,
                len: usize::try_from(here).ok()?,
            });
            len -= here;
            guest = guest.checked_add(here)?;
        }
        Some(())
    }

    /// Reads `into.len()` bytes at a guest address, byte by byte exactly once.
    pub fn read(&self, guest: u64, into: &mut [u8]) -> Option<()> {
        let mut rest = into;
        self.resolve(guest, rest.len() as u64, |_| ())?;
        let mut at = guest;
        while !rest.is_empty() {
            let (_, region) = self.region_at(at)?;
            let offset = usize::try_from(at - region.spec.guest).ok()?;
            let here = rest.len().min(region.map.len().checked_sub(offset)?);
            let (head, tail) = rest.split_at_mut_checked(here)?;
            copy_out(&region.map, offset, head)?;
            rest = tail;
            at = at.checked_add(here as u64)?;
        }
        Some(())
    }

    /// Reads a 16-byte descriptor as two volatile words: what is checked is what is used.
    #[inline]
    pub fn read_words(&self, place: Place, offset: usize) -> Option<[u64; 2]> {
        let region = self.regions.get(place.region as usize)?;
        if offset.checked_add(16)? > place.len {
            return None;
        }
        let slice = region.map.slice(place.offset.checked_add(offset)?, 16)?;
        let low = slice.get_ref::<u64>(0).ok()?.load();
        let high = slice.get_ref::<u64>(8).ok()?.load();
        Some([low, high])
    }

    /// An aligned integer at `offset` of a place.
    #[inline]
    pub fn load<T: AtomicAccess>(&self, place: Place, offset: usize, order: Ordering) -> Option<T> {
        if offset.checked_add(size_of::<T>())? > place.len {
            return None;
        }
        self.regions
            .get(place.region as usize)?
            .map
            .load(place.offset.checked_add(offset)?, order)
    }

    /// Writes an aligned integer at `offset` of a place.
    #[inline]
    pub fn store<T: AtomicAccess>(
        &self,
        place: Place,
        offset: usize,
        value: T,
        order: Ordering,
    ) -> Option<()> {
        if offset.checked_add(size_of::<T>())? > place.len {
            return None;
        }
        let at = place.offset.checked_add(offset)?;
        self.regions
            .get(place.region as usize)?
            .map
            .store(at, value, order)
    }

    /// Copies out of a segment, starting `skip` bytes into it.
    #[inline]
    pub(super) fn copy_out(&self, segment: &Segment, skip: usize, into: &mut [u8]) -> Option<()> {
        let region = self.regions.get(segment.region as usize)?;
        copy_out(&region.map, segment.offset.checked_add(skip)?, into)
    }

    /// Copies into a segment, starting `skip` bytes into it.
    #[inline]
    pub(super) fn copy_in(&self, segment: &Segment, skip: usize, from: &[u8]) -> Option<()> {
        let region = self.regions.get(segment.region as usize)?;
        let slice = region
            .map
            .slice(segment.offset.checked_add(skip)?, from.len())?;
        slice.copy_from(from);
        Some(())
    }

    /// Guest address of a segment.
    pub(super) fn segment_address(&self, segment: &Segment) -> Option<u64> {
        let region = self.regions.get(segment.region as usize)?;
        Some(region.spec.guest + segment.offset as u64)
    }
}

impl Place {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As a piece of a payload that begins at `start` of it.
    pub(crate) fn segment(self, start: usize) -> Segment {
        Segment {
            start,
            region: self.region,
            offset: self.offset,
            len: self.len,
        }
    }
}

fn copy_out(map: &Mapping, offset: usize, into: &mut [u8]) -> Option<()> {
    let slice = map.slice(offset, into.len())?;
    (slice.copy_to(into) == into.len()).then_some(())
}

#[cfg(test)]
mod tests;
