//! A platform that does nothing and says what another said before: it brings a batch back to where
//! it was, without touching the machine.

use view_core::suite::Tag;
use view_core::{Copies, OpenStep, Perm, Platform, SealStep, Target, View, What};

use crate::flight::Answer;
use crate::machine::Broken;

/// What was answered, and how much of it was said again.
#[derive(Debug)]
pub(crate) struct Echo<'a> {
    pub(crate) answers: &'a [Answer],
    pub(crate) heard: usize,
}

impl Echo<'_> {
    fn next(&mut self) -> Option<Answer> {
        let answer = self.answers.get(self.heard).copied();
        self.heard += 1;
        answer
    }
}

impl Platform for Echo<'_> {
    type Fault = Broken;

    fn withdraw(&mut self, _: &Target, _: View) -> Result<(), Broken> {
        Ok(())
    }

    fn fence(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    fn fetch(&mut self, _: &Target) -> Result<(), Broken> {
        Ok(())
    }

    fn seal(&mut self, _: &[SealStep], tags: &mut [Tag]) -> Result<(), Broken> {
        for tag in tags {
            if let Some(Answer::Tag(said)) = self.next() {
                *tag = said;
            }
        }
        Ok(())
    }

    fn open(&mut self, _: &[OpenStep], genuine: &mut [bool]) -> Result<(), Broken> {
        for genuine in genuine {
            if let Some(Answer::Genuine(said)) = self.next() {
                *genuine = said;
            }
        }
        Ok(())
    }

    fn scrub(&mut self, _: &Target, _: Copies) -> Result<(), Broken> {
        Ok(())
    }

    fn grant(&mut self, _: &Target, _: View, _: What, _: Perm) -> Result<(), Broken> {
        Ok(())
    }
}
