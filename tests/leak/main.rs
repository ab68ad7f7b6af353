//! The zero-leak test: pods that start and stop one after the other, and send and receive from their
//! first instruction on what policy forbids.

#[cfg(test)]
mod starts;
#[cfg(test)]
mod traffic;
