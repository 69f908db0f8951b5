//! The versions that may have been given to clients: `state_dir/versions.json` says below which number they lie. A start
//! goes on from there, so that versions only grow, whatever the clock says.

use serde::{Deserialize, Serialize};

use super::Disk;
use super::ballast::Room;
use super::load::{read, set_aside};

/// How many versions a start reserves: more than a process can use up (a million a second for twelve days), so that
/// nothing has to be written when a version is taken.
const RESERVED: u64 = 1 << 40;

const FILE: &str = "versions.json";

#[derive(Serialize, Deserialize)]
struct Reservation {
    /// No version at or above this one was ever given out.
    below: u64,
}

impl Disk {
    /// The version to start from, given the time in microseconds: above every version that an earlier process gave
    /// out. Beside it, in words, what stands in the way of that being certain, now or at the next start.
    pub(crate) fn first_version(&self, micros: u64) -> (u64, Vec<String>) {
        let path = self.root.join(FILE);
        let mut problems = Vec::new();
        let reserved = match read::<Reservation>(&path) {
            Ok(reservation) => reservation.map_or(0, |reservation| reservation.below),
            Err(problem) => {
                problems.push(set_aside(&path, &problem));
                0
            }
        };
        // The clock keeps versions growing where the file was lost.
        let first = reserved.max(micros);
        let below = first.saturating_add(RESERVED);
        if let Err(error) = self.write_durably(&self.root, FILE, &Reservation { below }, Room::Free) {
            problems.push(format!(
                "the versions of this start are not kept, so the next one relies on the clock: {error}"
            ));
        }
        (first, problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_over_a_start_also_when_the_clock_has_gone_back() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        let (first, _) = disk.first_version(5_000_000);
        assert_eq!(first, 5_000_000);
        let (second, problems) = disk.first_version(1);
        assert!(second >= first + RESERVED, "{second}");
        assert!(problems.is_empty(), "{problems:?}");
        let (third, _) = disk.first_version(second * 10);
        assert_eq!(third, second * 10);
    }

    #[test]
    fn a_reservation_that_cannot_be_read_is_set_aside_and_the_clock_counts() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        std::fs::write(dir.path().join(FILE), "{ torn").expect("tear");
        let (first, problems) = disk.first_version(7_000_000);
        assert_eq!((first, problems.len()), (7_000_000, 1));
        assert_eq!(disk.first_version(1).0, 7_000_000 + RESERVED);
    }
}
