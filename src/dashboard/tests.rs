//! Who gets in, and which forms are taken.
