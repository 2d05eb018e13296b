//! Hypercore trees and signed heads, segments, challenges and storage proofs
