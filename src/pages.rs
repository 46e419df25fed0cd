//! Pages for people, written from state. Pure: (state, now) in, text out.

pub mod landing;
