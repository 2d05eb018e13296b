//! Offers, requests, matching, contracts, duties, earned time and payouts
