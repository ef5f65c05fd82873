//! A platform that does nothing and says that it did: for what is about the core alone.

use std::convert::Infallible;

use view_core::suite::Tag;
use view_core::{Copies, OpenStep, Perm, Platform, SealStep, Target, View, What};

/// The platform. Whatever it is given to open is genuine.
#[derive(Clone, Copy, Debug)]
pub struct Obliging;

impl Platform for Obliging {
    type Fault = Infallible;

    fn withdraw(&mut self, _: &Target, _: View) -> Result<(), Infallible> {
        Ok(())
    }

    fn fence(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn fetch(&mut self, _: &Target) -> Result<(), Infallible> {
        Ok(())
    }

    fn seal(&mut self, _: &[SealStep], _: &mut [Tag]) -> Result<(), Infallible> {
        Ok(())
    }

    fn open(&mut self, _: &[OpenStep], genuine: &mut [bool]) -> Result<(), Infallible> {
        genuine.fill(true);
        Ok(())
    }

    fn scrub(&mut self, _: &Target, _: Copies) -> Result<(), Infallible> {
        Ok(())
    }

    fn grant(&mut self, _: &Target, _: View, _: What, _: Perm) -> Result<(), Infallible> {
        Ok(())
    }
}
