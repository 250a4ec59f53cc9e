//! What a rebuild writes into a generation that nobody reads yet, and how it is known what of that is there.
//!
//! A Redis that fails over forgets the latest writes that it has confirmed, and takes those that come after. So
//! everything vouches for what came before it: each batch of a part for the batch before, the note that a part is
//! written for its last batch, and the end of it all for every note.

use redis::{Script, Value};
use uuid::Uuid;

use crate::views::read;
use crate::writing::Expected;
use crate::{Fill, Guarded, Views, ViewsError, Watermark};

/// A part of a rebuild that is being written, in batches.
#[derive(Debug)]
pub struct Part {
    number: usize,
    /// What two tries write may be cut in different batches.
    name: Uuid,
    /// How many batches of it have been sent to each partition.
    batches: Vec<u32>,
}

impl Views {
    /// Begins to write a part, perhaps not for the first time; under a name made up by the caller, never used before.
    pub fn begin_part(&self, number: usize, name: Uuid) -> Part {
        Part { number, name, batches: vec![0; self.partitions.count().into()] }
    }

    /// Offers the next rows of a part, those of several partitions in one exchange; each is answered on its own. It is
    /// refused where Redis has forgotten the batch before.
    pub async fn fill_batch(
        &self,
        part: &mut Part,
        fills: &[Fill],
    ) -> Result<Vec<Guarded>, ViewsError> {
        let mut expected = vec![];
        for fill in fills {
            let batches = part.batches.get_mut(usize::from(fill.partition.0));
            let batches = batches.ok_or(ViewsError::Malformed("no such partition"))?;
            *batches += 1;
            let (part, name, number) = (part.number, part.name, *batches);
            expected.push(Some(Expected::Batch { part, name, number }));
        }
        self.offer_all("fill", fills.iter().zip(expected)).await
    }

    /// Notes in every partition that a part has been written. `false`: Redis has forgotten some of it.
    pub async fn mark_built(&self, marks: &[Watermark], part: &Part) -> Result<bool, ViewsError> {
        let last = |batches: &u32| match batches {
            0 => String::new(),
            number => format!("{} {number}", part.name.simple()),
        };
        let last = part.batches.iter().map(last);
        let arguments = last.map(|last| [part.number.to_string(), last]);
        self.agree(include_str!("note_part.lua"), marks, arguments).await
    }

    /// The parts that have been written in every partition, of so many.
    pub async fn built(&self, marks: &[Watermark], parts: usize) -> Result<Vec<bool>, ViewsError> {
        let mut exchange = self.connection.exchange();
        for key in self.notes(marks) {
            exchange.question(&key).get(&key);
        }
        let mut built = vec![true; parts];
        for answer in exchange.send().await.singles()? {
            let bits: Vec<u8> = read::<Option<_>>(answer)?.unwrap_or_default();
            for (part, built) in built.iter_mut().enumerate() {
                let byte = bits.get(part / 8).copied().unwrap_or(0);
                *built &= byte & (0x80 >> (part % 8)) != 0;
            }
        }
        Ok(built)
    }

    /// Declares every partition whole, of which so many parts have been written. `false`: Redis has forgotten one.
    pub async fn end_build(&self, marks: &[Watermark], parts: usize) -> Result<bool, ViewsError> {
        let arguments = marks.iter().map(|_| [parts.to_string()]);
        self.agree(include_str!("end_build.lua"), marks, arguments).await
    }

    /// Forgets the notes of a rebuild that is over.
    pub async fn forget_built(&self, marks: &[Watermark]) -> Result<(), ViewsError> {
        self.unlink(self.notes(marks)).await
    }

    /// Where it is noted in each partition which parts have been written.
    fn notes(&self, marks: &[Watermark]) -> Vec<String> {
        let keys = self.keys();
        let marks = self.partitions.all().zip(marks);
        marks.map(|(partition, mark)| keys.built(partition, &mark.epoch)).collect()
    }

    /// Runs a script on the watermark and the notes of every partition, and tells whether all answer 1.
    async fn agree<const N: usize>(
        &self,
        script: &str,
        marks: &[Watermark],
        arguments: impl Iterator<Item = [String; N]>,
    ) -> Result<bool, ViewsError> {
        let (keys, script) = (self.keys(), Script::new(script));
        let mut exchange = self.connection.exchange();
        for ((partition, mark), arguments) in self.partitions.all().zip(marks).zip(arguments) {
            let key = keys.watermark(partition);
            let mut call = script.prepare_invoke();
            call.key(&key).key(keys.built(partition, &mark.epoch)).key(keys.never(partition));
            call.arg(&mark.epoch);
            for argument in arguments {
                call.arg(argument);
            }
            exchange.call(&key, &script, &call);
        }
        let answers = exchange.send().await.singles()?;
        Ok(answers.iter().all(|answer| *answer == Value::Int(1)))
    }
}
