//! The monitor on a machine of plain memory: what it promises to guests, and what hypervisors try.

mod attacks;
mod calls;
mod guest;
mod interrupts;
mod life;
mod machine;
mod pages;
mod play;
mod property;
mod registers;
mod rig;
mod scarce;
mod step;
mod world;
