//! Compact encoding, Noise, secret stream and protomux
