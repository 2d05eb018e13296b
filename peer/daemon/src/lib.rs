//! Does what the roles ask: one task owns one resource
