//! What an answer says of names (RFC 1035 section 4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, ResourceRecord};

/// Aliases that are followed, at most.
const LONGEST_CHAIN: usize = 16;

/// One address of one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Resolved {
    /// In lower case, without the last dot.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// How long that holds.
    pub ttl: Duration,
}

/// The header's identification and the question's bytes tell whether an answer belongs to a query: true if
/// it does.
pub fn answers(query: &[u8], answer: &[u8]) -> bool {
    const HEADER: usize = 12;
    const RESPONSE: u8 = 0x80;
    let question = |message: &[u8]| {
        let message = message.get(HEADER..)?;
        let mut end = 0;
        // A question's name is not compressed: nothing comes before it.
        while let Some(&length) = message.get(end) {
            end += 1 + usize::from(length);
            if length == 0 {
                let question = message.get(..end + 4)?;
                return Some(question.to_ascii_lowercase());
            }
        }
        None
    };
    answer.get(2).is_some_and(|flags| flags & RESPONSE != 0)
        && query.get(..2) == answer.get(..2)
        // Some servers leave the question out where they refuse it.
        && (answer.get(4..6) == Some(&[0, 0]) || question(query) == question(answer))
}

/// The addresses that an answer gives to the name it was asked for and to that name's aliases. What is no
/// answer, or says other things, gives none: only what the question leads to counts.
pub fn resolved(message: &[u8]) -> Vec<Resolved> {
    let Ok(packet) = Packet::parse(message) else {
        return Vec::new();
    };
    let [question] = &packet.questions[..] else {
        return Vec::new();
    };
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return Vec::new();
    }
    let mut records: BTreeMap<String, Vec<&ResourceRecord<'_>>> = BTreeMap::new();
    for record in packet.answers.iter().filter(|one| one.class == CLASS::IN) {
        if let Some(name) = text(&record.name) {
            records.entry(name).or_default().push(record);
        }
    }
    let mut found = BTreeSet::new();
    // Names from the question on, each with what limits the way to it.
    let asked = text(&question.qname).map(|name| (name, u32::MAX));
    let mut chain: Vec<(String, u32)> = asked.into_iter().collect();
    while let Some((name, _)) = chain.last().cloned()
        && chain.len() <= LONGEST_CHAIN
    {
        let mut alias = None;
        for record in records.remove(&name).unwrap_or_default() {
            let address: IpAddr = match &record.rdata {
                RData::A(a) => Ipv4Addr::from(a.address).into(),
                RData::AAAA(aaaa) => Ipv6Addr::from(aaaa.address).into(),
                RData::CNAME(target) => {
                    alias = text(&target.0).map(|name| (name, record.ttl));
                    continue;
                }
                _ => continue,
            };
            let mut ttl = record.ttl;
            for (name, limit) in chain.iter().rev() {
                found.insert(Resolved {
                    name: name.clone(),
                    address,
                    ttl: Duration::from_secs(ttl.into()),
                });
                ttl = ttl.min(*limit);
            }
        }
        match alias {
            Some(alias) => chain.push(alias),
            None => break,
        }
    }
    found.into_iter().collect()
}

/// A name that rules can have, in lower case and without the last dot. A label can hold any octet, dots too: what such
/// a name looks like is not what it is.
fn text(name: &Name<'_>) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut text = String::new();
    for label in name.as_bytes() {
        if !label.iter().all(plain) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(
            label
                .iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::{A, AAAA, CNAME};
    use simple_dns::{QCLASS, QTYPE, Question, TYPE};

    use super::*;

    fn name(text: &str) -> Name<'_> {
        Name::new(text).unwrap()
    }

    fn record<'a>(owner: &'a str, ttl: u32, rdata: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(name(owner), CLASS::IN, ttl, rdata)
    }

    fn a(owner: &str, ttl: u32, last: u8) -> ResourceRecord<'_> {
        let address = Ipv4Addr::new(192, 0, 2, last).to_bits();
        record(owner, ttl, RData::A(A { address }))
    }

    fn cname<'a>(owner: &'a str, ttl: u32, target: &'a str) -> ResourceRecord<'a> {
        record(owner, ttl, RData::CNAME(CNAME(name(target))))
    }

    fn answer(asked: &str, records: Vec<ResourceRecord<'_>>) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let question = Question::new(
            name(asked),
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        );
        packet.questions.push(question);
        packet.answers = records;
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn told(message: &[u8]) -> Vec<(String, String, u64)> {
        let all = resolved(message).into_iter();
        all.map(|one| (one.name, one.address.to_string(), one.ttl.as_secs()))
            .collect()
    }

    fn of(name: &str, address: &str, ttl: u64) -> (String, String, u64) {
        (name.to_owned(), address.to_owned(), ttl)
    }

    #[test]
    fn addresses_belong_to_the_name_and_its_aliases() {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).to_bits();
        let message = answer(
            "WWW.example.com",
            vec![
                cname("www.Example.com", 30, "cdn.example.net"),
                a("edge.example.net", 60, 1),
                cname("cdn.example.net", 90, "edge.example.net"),
                record("edge.example.net", 20, RData::AAAA(AAAA { address })),
            ],
        );
        assert_eq!(
            told(&message),
            [
                of("cdn.example.net", "192.0.2.1", 60),
                of("cdn.example.net", "2001:db8::1", 20),
                of("edge.example.net", "192.0.2.1", 60),
                of("edge.example.net", "2001:db8::1", 20),
                of("www.example.com", "192.0.2.1", 30),
                of("www.example.com", "2001:db8::1", 20),
            ]
        );
    }

    #[test]
    fn what_the_question_does_not_lead_to_does_not_count() {
        let other = answer("a.example.com", vec![a("b.example.com", 60, 1)]);
        let chaos = ResourceRecord::new(name("a.example.com"), CLASS::CH, 60, a("x.y", 1, 1).rdata);
        let circle = vec![
            cname("a.example.com", 9, "b.example.com"),
            cname("b.example.com", 9, "a.example.com"),
        ];
        for message in [
            other,
            answer("a.example.com", vec![chaos]),
            answer("a.example.com", circle),
            vec![0; 12],
            vec![],
        ] {
            assert_eq!(told(&message), []);
        }
        let mut query = answer("a.example.com", vec![a("a.example.com", 60, 1)]);
        assert_eq!(told(&query).len(), 1);
        query[2] &= 0x7f;
        assert_eq!(told(&query), [], "it is a query");
    }

    #[test]
    fn a_dot_in_a_label_ends_no_label() {
        let inside = answer(r"www\.example.com", vec![a(r"www\.example.com", 60, 1)]);
        assert_eq!(told(&inside), []);
        let alias = answer(
            "a.example.com",
            vec![
                cname("a.example.com", 60, r"www\.example.com"),
                a(r"www\.example.com", 60, 1),
            ],
        );
        assert_eq!(told(&alias), []);
    }

    /// Each byte of an answer changed to each value, each beginning of it, and pointers that lead in circles.
    #[test]
    fn damaged_messages_are_no_harm() {
        let whole = answer(
            "www.example.com",
            vec![
                cname("www.example.com", 30, "cdn.example.net"),
                a("cdn.example.net", 60, 1),
            ],
        );
        let mut query = answer("www.example.com", vec![]);
        query[2] &= 0x7f;
        let asked = |name: &str| ["www.example.com", "cdn.example.net"].contains(&name);
        let mut known = 0;
        for place in 0..whole.len() {
            assert_eq!(told(&whole[..place]), [], "{place} bytes");
            for value in 0..=u8::MAX {
                let mut damaged = whole.clone();
                damaged[place] = value;
                // Only a change of the question's or the records' own bytes gives other names.
                known += told(&damaged)
                    .iter()
                    .filter(|(name, ..)| asked(name))
                    .count();
                answers(&query, &damaged);
                answers(&damaged, &whole);
            }
        }
        assert!(known > 0, "what is no name may change");
        let header = [0, 7, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        for pointers in [&[0xc0, 12][..], &[0xc0, 14, 0xc0, 12], &[1, b'a', 0xc0, 12]] {
            let message = [&header[..], pointers, &[0, 1, 0, 1], pointers, &[0; 16]].concat();
            assert_eq!(told(&message), []);
        }
    }

    #[test]
    fn an_answer_belongs_to_its_query() {
        let mine = answer("a.example.com", vec![a("a.example.com", 60, 1)]);
        let mut query = answer("A.example.com", vec![]);
        query[2] &= 0x7f;
        assert!(answers(&query, &mine));
        assert!(!answers(&query, &query), "it is a query");
        assert!(!answers(&query, &answer("b.example.com", vec![])));
        let mut other = mine.clone();
        other[1] ^= 1;
        assert!(!answers(&query, &other), "of another identification");
        assert!(!answers(&query, &mine[..14]));
    }
}
