//! Putting short samples together, so that batches are evenly full.

use std::collections::BTreeMap;

use super::Sample;

/// Samples that a batch takes as one. They lie end to end, each attending to itself only: nothing leaks from one to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    pub samples: Vec<usize>,
}

/// Best fit in the order of the samples: each goes into the fullest pack that still has room for it.
pub(super) fn fill(samples: &[Sample], length: usize) -> Vec<Pack> {
    let mut packs: Vec<Pack> = Vec::new();
    let mut by_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (sample, needed) in samples.iter().map(|sample| sample.ids.len()).enumerate() {
        let (pack, room) = match by_room.range_mut(needed..).next().map(|(&room, packs)| (room, packs.pop())) {
            Some((room, Some(pack))) => {
                if by_room.get(&room).is_some_and(Vec::is_empty) {
                    by_room.remove(&room);
                }
                (pack, room)
            }
            _ => {
                packs.push(Pack { samples: Vec::new() });
                (packs.len() - 1, length)
            }
        };
        packs[pack].samples.push(sample);
        by_room.entry(room - needed).or_default().push(pack);
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(lengths: &[usize], length: usize) -> Vec<Vec<usize>> {
        let sample = |&n: &usize| Sample { ids: vec![0; n], labels: vec![0; n], cut: Vec::new(), row: 0 };
        let samples: Vec<Sample> = lengths.iter().map(sample).collect();
        fill(&samples, length).into_iter().map(|pack| pack.samples).collect()
    }

    #[test]
    fn each_sample_goes_where_it_fits_best() {
        assert_eq!(packed(&[6, 5, 4, 3, 2], 10), [vec![0, 2], vec![1, 3, 4]]);
        assert_eq!(packed(&[10, 10], 10), [vec![0], vec![1]]);
        assert_eq!(packed(&[1, 1, 1], 2), [vec![0, 1], vec![2]]);
        assert!(packed(&[], 10).is_empty());
    }

    #[test]
    fn empty_samples_take_no_room() {
        assert_eq!(packed(&[0, 2, 0], 2), [vec![0, 1, 2]]);
    }
}
