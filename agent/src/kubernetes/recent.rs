//! What was found out a moment ago: a bounded memory of answers that count for a short time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// What an answer is remembered by: a digest, so that neither tokens nor long questions are kept.
pub(super) type Key = [u8; 32];

/// Answers, each until its time has passed. Where there are too many, the one whose time is over first makes room.
#[derive(Debug)]
pub(super) struct Recent<T> {
    answers: HashMap<Key, (Instant, T)>,
    limit: usize,
}

impl<T> Recent<T> {
    /// Remembers at most `limit` answers.
    pub(super) fn new(limit: usize) -> Recent<T> {
        Recent {
            answers: HashMap::new(),
            limit,
        }
    }

    /// The answer, while it counts.
    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        let (until, answer) = self.answers.get(key)?;
        (*until > Instant::now()).then_some(answer)
    }

    /// Whether there is one, or was not long ago.
    pub(super) fn has_seen(&self, key: &Key) -> bool {
        self.answers.contains_key(key)
    }

    /// Remembers an answer for this long.
    pub(super) fn put(&mut self, key: Key, answer: T, lasts: Duration) {
        if self.answers.len() >= self.limit && !self.answers.contains_key(&key) {
            let first = self.answers.iter().min_by_key(|(_, (until, _))| *until);
            if let Some(first) = first.map(|(key, _)| *key) {
                self.answers.remove(&first);
            }
        }
        self.answers.insert(key, (Instant::now() + lasts, answer));
    }

    /// Forgets an answer.
    pub(super) fn forget(&mut self, key: &Key) {
        self.answers.remove(key);
    }
}

/// How often something may be done: so many times a second, and as often at once.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u32,
    left: f64,
    counted_at: Instant,
}

impl Pace {
    /// `per_second` times a second.
    pub(super) fn new(per_second: u32) -> Pace {
        Pace {
            per_second,
            left: f64::from(per_second),
            counted_at: Instant::now(),
        }
    }

    /// Whether it may be done once more now.
    pub(super) fn allows(&mut self) -> bool {
        let now = Instant::now();
        let most = f64::from(self.per_second);
        let gained = now.duration_since(self.counted_at).as_secs_f64() * most;
        self.left = (self.left + gained).min(most);
        self.counted_at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

/// A pace for each of those who ask. Where there are too many of them, the one that has not asked for longest makes room:
/// it has the most left.
#[derive(Debug)]
pub(super) struct Paces {
    paces: HashMap<Key, Pace>,
    per_second: u32,
    limit: usize,
}

impl Paces {
    /// `per_second` times a second for each, and at most `limit` of them.
    pub(super) fn new(per_second: u32, limit: usize) -> Paces {
        Paces {
            paces: HashMap::new(),
            per_second,
            limit,
        }
    }

    /// Whether it may be done once more now by this one.
    pub(super) fn allow(&mut self, key: Key) -> bool {
        if self.paces.len() >= self.limit && !self.paces.contains_key(&key) {
            let rested = self.paces.iter().min_by_key(|(_, pace)| pace.counted_at);
            if let Some(rested) = rested.map(|(key, _)| *key) {
                self.paces.remove(&rested);
            }
        }
        let per_second = self.per_second;
        self.paces
            .entry(key)
            .or_insert_with(|| Pace::new(per_second))
            .allows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_its_time_and_is_known_to_have_been_there() {
        let mut recent = Recent::new(2);
        recent.put([1; 32], "one", SECOND * 5);
        assert_eq!(recent.get(&[1; 32]), Some(&"one"));
        tokio::time::advance(SECOND * 5).await;
        assert_eq!(recent.get(&[1; 32]), None);
        assert!(recent.has_seen(&[1; 32]) && !recent.has_seen(&[2; 32]));
        recent.forget(&[1; 32]);
        assert!(!recent.has_seen(&[1; 32]));
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_the_first_to_end_makes_room() {
        let mut recent = Recent::new(2);
        recent.put([1; 32], "long", SECOND * 9);
        recent.put([2; 32], "short", SECOND);
        recent.put([3; 32], "new", SECOND * 5);
        let there = [1, 2, 3].map(|key| recent.get(&[key; 32]).is_some());
        assert_eq!(there, [true, false, true]);
        recent.put([3; 32], "again", SECOND);
        assert_eq!(recent.get(&[1; 32]), Some(&"long"), "a known key takes no room");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_allows_a_second_s_worth_at_once_and_then_so_many_a_second() {
        let mut pace = Pace::new(10);
        let allowed = |pace: &mut Pace| (0..100).filter(|_| pace.allows()).count();
        assert_eq!(allowed(&mut pace), 10);
        tokio::time::advance(SECOND / 2).await;
        assert_eq!(allowed(&mut pace), 5);
        tokio::time::advance(SECOND * 60).await;
        assert_eq!(allowed(&mut pace), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_a_pace_of_its_own_and_who_rested_longest_makes_room() {
        let mut paces = Paces::new(10, 2);
        let allowed = |paces: &mut Paces, key: u8| (0..100).filter(|_| paces.allow([key; 32])).count();
        assert_eq!(allowed(&mut paces, 1), 10);
        assert_eq!(allowed(&mut paces, 2), 10, "the first has used up nothing of it");
        tokio::time::advance(SECOND / 2).await;
        assert_eq!(allowed(&mut paces, 2), 5);
        assert_eq!(allowed(&mut paces, 3), 10);
        assert_eq!(paces.paces.len(), 2);
        assert_eq!(
            allowed(&mut paces, 2),
            0,
            "the first made room, and not the busy one"
        );
    }
}
