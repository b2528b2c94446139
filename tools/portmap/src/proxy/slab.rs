//! Places that are used again, each use with a number of its own, so that a late event is not taken for the next one's.

/// Values in numbered places.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Returns the value's place, and which use of it this is.
    pub(super) fn insert(&mut self, value: T) -> (u32, u32) {
        if let Some(index) = self.free.pop() {
            if let Some((generation, place)) = self.places.get_mut(index as usize) {
                *place = Some(value);
                return (index, *generation);
            }
        }
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push((0, Some(value)));
        (index, 0)
    }

    pub(super) fn get(&self, index: u32, generation: u32) -> Option<&T> {
        self.places.get(index as usize).filter(|(use_of, _)| *use_of == generation)?.1.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize).filter(|(use_of, _)| *use_of == generation)?.1.as_mut()
    }

    pub(super) fn remove(&mut self, index: u32) {
        if let Some((generation, place)) = self.places.get_mut(index as usize) {
            if place.take().is_some() {
                // A token has 24 bits for it.
                *generation = (*generation + 1) & 0x00ff_ffff;
                self.free.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_event_does_not_reach_the_next_value() {
        let mut slab = Slab::default();
        let (index, generation) = slab.insert("a");
        slab.remove(index);
        slab.remove(index);
        let second = slab.insert("b");
        assert_eq!((second.0, slab.len()), (index, 1));
        assert_eq!(slab.get(index, generation), None);
        assert_eq!(slab.get(second.0, second.1), Some(&"b"));
    }
}
