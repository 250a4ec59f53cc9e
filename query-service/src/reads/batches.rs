//! Questions that are gathered: those that come while others are being answered wait, and go out together in
//! the next exchange, each question once. So the more there are, the less each costs.
//!
//! Unlike who joins a flight, nobody is given what was read before they asked.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many different questions an exchange asks at most, for the answers to all of them come at once.
const QUESTIONS: usize = 64;

#[derive(Debug)]
pub(crate) struct Batches<K, T> {
    waiting: Arc<Mutex<Waiting<K, T>>>,
}

#[derive(Debug)]
struct Waiting<K, T> {
    questions: VecDeque<(K, oneshot::Sender<T>)>,
    /// Somebody is asking, and will ask for all who wait.
    is_asking: bool,
}

impl<K, T> Batches<K, T>
where
    K: Copy + Eq + Hash + Send + 'static,
    T: Clone + Send + 'static,
{
    pub(crate) fn new() -> Self {
        let waiting = Waiting { questions: VecDeque::new(), is_asking: false };
        Self { waiting: Arc::new(Mutex::new(waiting)) }
    }

    /// The answer to a question, by an exchange that begins after this; `None` if it panicked. `exchange`
    /// answers questions in their order.
    pub(crate) async fn ask<F>(
        &self,
        question: K,
        exchange: impl Fn(Vec<K>) -> F + Send + 'static,
    ) -> Option<T>
    where
        F: Future<Output = Vec<T>> + Send + 'static,
    {
        let (asker, answer) = oneshot::channel();
        if let Some(turn) = self.wait(question, asker) {
            // It goes on when whoever began it has gone, for others wait for it, too.
            tokio::spawn(turn.use_for(exchange));
        }
        answer.await.ok()
    }

    /// Gives a turn to ask if nobody has it.
    fn wait(&self, question: K, asker: oneshot::Sender<T>) -> Option<Turn<K, T>> {
        let mut waiting = lock(&self.waiting);
        waiting.questions.push_back((question, asker));
        if waiting.is_asking {
            return None;
        }
        waiting.is_asking = true;
        Some(Turn { waiting: self.waiting.clone(), is_over: false })
    }
}

/// To ask in one exchange after the other, until nobody waits.
struct Turn<K, T> {
    waiting: Arc<Mutex<Waiting<K, T>>>,
    is_over: bool,
}

type Asked<K, T> = (Vec<K>, Vec<Vec<oneshot::Sender<T>>>);

impl<K: Copy + Eq + Hash, T: Clone> Turn<K, T> {
    async fn use_for<F>(mut self, exchange: impl Fn(Vec<K>) -> F)
    where
        F: Future<Output = Vec<T>>,
    {
        while let Some((questions, askers)) = self.next() {
            let answers = exchange(questions).await;
            for (askers, answer) in askers.into_iter().zip(answers) {
                let mut askers = askers.into_iter();
                let last = askers.next_back();
                // Some may have gone.
                for asker in askers {
                    let _ = asker.send(answer.clone());
                }
                let _ = last.map(|asker| asker.send(answer));
            }
        }
    }

    /// The first questions that wait, and those who ask them. Without any the turn is over in the same step,
    /// so whoever comes next has it.
    fn next(&mut self) -> Option<Asked<K, T>> {
        let mut waiting = lock(&self.waiting);
        let (mut questions, mut askers) = (vec![], Vec::<Vec<_>>::new());
        let mut places = HashMap::new();
        while let Some((question, asker)) = waiting.questions.pop_front() {
            match places.get(&question) {
                Some(place) => {
                    let place: &usize = place;
                    askers[*place].push(asker);
                }
                None if questions.len() == QUESTIONS => {
                    waiting.questions.push_front((question, asker));
                    break;
                }
                None => {
                    places.insert(question, questions.len());
                    questions.push(question);
                    askers.push(vec![asker]);
                }
            }
        }
        if questions.is_empty() {
            waiting.is_asking = false;
            self.is_over = true;
            return None;
        }
        Some((questions, askers))
    }
}

impl<K, T> Drop for Turn<K, T> {
    fn drop(&mut self) {
        if !self.is_over {
            // It panicked, and nobody asks for those who wait.
            let mut waiting = lock(&self.waiting);
            waiting.is_asking = false;
            waiting.questions.clear();
        }
    }
}

fn lock<K, T>(waiting: &Mutex<Waiting<K, T>>) -> MutexGuard<'_, Waiting<K, T>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    type Answer = (u32, Arc<Vec<u32>>);

    #[tokio::test(start_paused = true)]
    async fn those_who_come_meanwhile_are_answered_together_each_question_once() {
        let batches = Batches::new();
        let early = batches.ask(7, slowly);
        let late = async {
            sleep(Duration::from_millis(1)).await;
            join_all([7, 8, 7, 9].map(|question| batches.ask(question, slowly))).await
        };
        let (early, late) = tokio::join!(early, late);
        assert_eq!(*early.unwrap().1, [7]);
        for (question, answer) in [7, 8, 7, 9].into_iter().zip(late) {
            let (answered, asked) = answer.unwrap();
            assert_eq!((answered, &asked[..]), (question, &[7, 8, 9][..]), "they went apart");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_has_so_many_questions_at_most() {
        let batches = Batches::new();
        let many = 3 * QUESTIONS as u32;
        let answers = join_all((0..many).map(|question| batches.ask(question, slowly))).await;
        for (question, answer) in (0..many).zip(answers) {
            let (answered, asked) = answer.unwrap();
            assert_eq!(answered, question);
            assert!(asked.len() <= QUESTIONS);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_goes_on_without_whoever_began_it() {
        let batches = Batches::new();
        let first = batches.ask(7, slowly);
        assert!(tokio::time::timeout(Duration::from_millis(1), first).await.is_err());
        assert_eq!(batches.ask(8, slowly).await.unwrap().0, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_an_exchange_that_panicked() {
        let batches = Batches::new();
        let panics = async |_: Vec<u32>| -> Vec<Answer> {
            sleep(Duration::from_millis(50)).await;
            panic!("no")
        };
        let asked = join_all((0..5).map(|question| batches.ask(question, panics))).await;
        assert!(asked.iter().all(Option::is_none));
        assert_eq!(batches.ask(8, slowly).await.unwrap().0, 8);
    }

    async fn slowly(questions: Vec<u32>) -> Vec<Answer> {
        sleep(Duration::from_millis(50)).await;
        let asked = Arc::new(questions.clone());
        questions.into_iter().map(|question| (question, asked.clone())).collect()
    }
}
