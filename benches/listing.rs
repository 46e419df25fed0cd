//! The listing that the benches read.

use std::fmt::Write as _;

/// A listing of keys as they come: ids of one time and chance, five scopes, two networks.
/// Another one for each seed.
pub(crate) fn listing(count: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut body = String::from("{\"status\":200,\"data\":[");
    for number in 0..count {
        let id = format!(
            "0197{:04x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
            number >> 16 & 0xffff,
            number & 0xffff,
            random.u16(..0x1000),
            random.u16(..0x1000),
            random.u64(..1 << 48)
        );
        write!(
            body,
            "{}{{\"id\":\"api_key_{id}\",\"label\":\"service {number}\",\"secret\":\"sk_live_MDE5N2MwZWMt...{number:05}\",\
             \"scopes\":[\"payments.create\",\"payments.read\",\"invoices.read\",\"products.read\",\"webhooks.read\"],\
             \"ip_allow_list\":[\"10.{}.0.0/16\",\"192.0.2.{}\"],\"expires_at\":\"2027-{:02}-{:02} 10:11:12\",\
             \"created_at\":\"2025-06-30 15:00:22\",\"updated_at\":null}}",
            if number == 0 { "" } else { "," }, number % 256, number % 250, number % 12 + 1, number % 28 + 1
        )
        .unwrap();
    }
    body.push_str("],\"error\":null,\"support_id\":null,\"env\":\"production\"}");
    body.into_bytes()
}
