//! Domain names in rules: what a pod may reach follows from what it has resolved.

mod dns;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::topology::Dual;
use sluice_lab::workload::client::Connection;
use sluice_lab::{wait, workload};

use crate::serve::metric;
use crate::world::{Client, PATIENCE, REQUEST, TCP, World, at, vip};
use dns::{Nameserver, Transport, Zone};

/// The pods `app: web` reach nameservers and what these names resolve to.
const RULES: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 5
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}
  egress:
  - action: Accept
    to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: dns}}}}]
    protocols: [{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {number: 53}}}]
  - {action: Accept, to: [{domainNames: [www.example.com, '*.wild.example.com']}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}
";

/// A nameserver on the second node, a web pod on each, and two sites to reach.
struct Scene {
    world: World,
    zone: Zone,
    servers: Vec<Nameserver>,
    vip: Dual,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new();
        world.pod_on_each_node("web");
        world.pod("site", 1, &[("app", "site")]);
        world.pod("other", 2, &[("app", "site")]);
        world.pod("dns", 2, &[("app", "dns")]);
        let zone = Zone::default();
        let server = Nameserver::start(world.plane.pod("dns").netns(), &zone);
        let vip = vip(53);
        let service = ServiceManifest::new("dns").cluster_ips(vip.both());
        world.apply(&service.port("tcp", 53, 53).udp_port("udp", 53, 53));
        let scene = Self {
            world,
            zone,
            servers: vec![server],
            vip,
        };
        for web in scene.webs() {
            for to in scene.nameservers() {
                wait::until(PATIENCE, "the nameserver to answer", || {
                    dns::ask(&web, to, Transport::Udp, "nobody.example.com")
                })
                .unwrap();
            }
        }
        scene
    }

    fn webs(&self) -> [Client; 2] {
        ["web-1", "web-2"].map(|name| self.world.client_in(name))
    }

    /// The nameserver by its Service and by itself.
    fn nameservers(&self) -> Vec<SocketAddr> {
        let own = self.world.plane.pod("dns").addrs();
        [at(self.vip, 53), at(own, 53)].concat()
    }

    fn addrs(&self, pod: &str) -> Dual {
        self.world.plane.pod(pod).addrs()
    }

    /// Applies the rules and waits until queries go through the proxy: the nameserver sees a node then.
    fn enforce(&mut self) {
        self.world.yaml(RULES);
        let nodes: BTreeSet<IpAddr> = [1, 2]
            .into_iter()
            .flat_map(|node| {
                let node = self.world.plane.cluster().node(node);
                [node.addrs().both(), node.gateway().both()].concat()
            })
            .collect();
        for web in self.webs() {
            for to in self.nameservers() {
                for transport in Transport::ALL {
                    let what = format!("{} to ask {to} through the proxy", web.name);
                    wait::until(PATIENCE, &what, || {
                        self.zone.forget();
                        dns::ask(&web, to, transport, "nobody.example.com")?;
                        let seen = self.zone.clients();
                        if seen.iter().all(|client| nodes.contains(client)) {
                            Ok(())
                        } else {
                            Err(format!("the nameserver sees {seen:?}, nodes are {nodes:?}"))
                        }
                    })
                    .unwrap();
                }
            }
        }
    }
}

/// Shorter than the pause before TCP's second attempt (RFC 6298 section 2.1): only the first counts.
const FIRST: Duration = Duration::from_millis(900);

/// Whether a web pod reaches a site at the first attempt, in both families.
fn reaches(client: &Client, site: Dual) -> [bool; 2] {
    let get = |to| client.netns.run(|| workload::client::get(to, "/", FIRST));
    at(site, TCP).map(|to| get(to).is_ok())
}

#[test]
fn what_a_name_resolves_to_is_reached_when_the_answer_arrives_and_nothing_else_is() {
    let mut scene = Scene::new();
    scene.enforce();
    let (site, other) = (scene.addrs("site"), scene.addrs("other"));
    let mut asked: u8 = 0;
    for web in scene.webs() {
        assert_eq!(
            reaches(&web, site),
            [false; 2],
            "{}: nothing is resolved",
            web.name
        );
        for to in scene.nameservers() {
            for transport in Transport::ALL {
                // A name of its own each time, so that its addresses are new.
                let name = format!("n{asked}.wild.example.com");
                asked += 1;
                let alias = format!("c{asked}.cdn.example.net");
                let (held, all) = (dns::spare(asked), site.both());
                scene.zone.alias(&name, &alias);
                scene.zone.set(&alias, &[&all[..], &held.both()].concat());
                let mut answer = dns::ask(&web, to, transport, &name).unwrap();
                answer.sort_unstable();
                let mut expected = [all, held.both()].concat();
                expected.sort_unstable();
                assert_eq!(answer, expected, "{name} of {to}");
                assert_eq!(
                    reaches(&web, site),
                    [true; 2],
                    "{} after {name} of {to}",
                    web.name
                );
            }
        }
    }
    // Names that no rule has are resolved like any other.
    let web = &scene.webs()[0];
    let to = scene.nameservers()[0];
    scene.zone.set("other.example.com", &other.both());
    assert_eq!(
        dns::ask(web, to, Transport::Udp, "other.example.com")
            .unwrap()
            .len(),
        2
    );
    assert_eq!(reaches(web, other), [false; 2]);
    scene.zone.set("www.example.com", &other.both());
    assert_eq!(
        dns::ask(web, to, Transport::Tcp, "WWW.Example.Com")
            .unwrap()
            .len(),
        2
    );
    assert_eq!(reaches(web, other), [true; 2]);
    // What no rule with names concerns asks by itself.
    scene.zone.forget();
    let client = scene.world.client(1);
    dns::ask(
        &client,
        at(scene.addrs("dns"), 53)[0],
        Transport::Udp,
        "nobody.example.com",
    )
    .unwrap();
    assert_eq!(
        scene.zone.clients(),
        BTreeSet::from([client.addrs.v4.into()])
    );
}

#[test]
fn a_nameserver_that_policy_forbids_is_not_asked() {
    let mut scene = Scene::new();
    scene.enforce();
    let site = scene.world.plane.pod("site");
    scene
        .servers
        .push(Nameserver::start(site.netns(), &scene.zone));
    scene
        .zone
        .set("www.example.com", &scene.addrs("other").both());
    scene.zone.forget();
    for web in scene.webs() {
        for to in at(site.addrs(), 53) {
            for transport in Transport::ALL {
                let refused = dns::ask(&web, to, transport, "www.example.com");
                assert!(
                    refused.is_err(),
                    "{} by {transport:?}: {refused:?}",
                    web.name
                );
            }
        }
    }
    assert_eq!(scene.zone.clients(), BTreeSet::new());
}

#[test]
fn what_was_resolved_stays_reachable_while_the_agent_is_away_and_after_it_returned() {
    let mut scene = Scene::new();
    scene.enforce();
    let (site, other) = (scene.addrs("site"), scene.addrs("other"));
    scene.zone.set("www.example.com", &site.both());
    scene.zone.set("a.wild.example.com", &other.both());
    let [web, _] = scene.webs();
    let to = scene.nameservers()[0];
    dns::ask(&web, to, Transport::Udp, "www.example.com").unwrap();
    assert_eq!(reaches(&web, site), [true; 2]);
    scene.world.plane.agents[0].kill().unwrap();
    assert_eq!(reaches(&web, site), [true; 2]);
    let away = dns::ask(&web, to, Transport::Udp, "a.wild.example.com");
    assert!(away.is_err(), "{away:?}");
    scene.world.plane.agents[0].start().unwrap();
    assert_eq!(reaches(&web, site), [true; 2], "it is known from before");
    // No answer comes but by the proxy.
    wait::until(PATIENCE, "the proxy to answer again", || {
        dns::ask(&web, to, Transport::Udp, "a.wild.example.com")
    })
    .unwrap();
    assert_eq!(reaches(&web, other), [true; 2]);
    // Without rules the pod asks by itself again.
    let object = ("ClusterNetworkPolicy", "names");
    scene.world.plane.delete_object(object.0, object.1).unwrap();
    wait::until(PATIENCE, "the pod to ask by itself", || {
        scene.zone.forget();
        dns::ask(&web, to, Transport::Udp, "nobody.example.com")?;
        match scene.zone.clients() {
            seen if seen == BTreeSet::from([web.addrs.v4.into()]) => Ok(()),
            seen => Err(format!("the nameserver sees {seen:?}")),
        }
    })
    .unwrap();
}

/// The rules ask for at least a hundred addresses of a name, which do not fit a packet.
#[test]
fn a_name_may_have_many_addresses() {
    let mut scene = Scene::new();
    scene.enforce();
    let site = scene.addrs("site");
    for (index, transport) in Transport::ALL.into_iter().enumerate() {
        let web = &scene.webs()[index];
        let name = format!("many-{index}.wild.example.com");
        let spare = (1..=110).flat_map(|number| dns::spare(number).both());
        let all: Vec<_> = spare.chain(site.both()).collect();
        scene.zone.set(&name, &all);
        for to in scene.nameservers() {
            let answer = dns::ask(web, to, transport, &name).unwrap();
            assert_eq!(answer.len(), all.len(), "{transport:?} {to}");
        }
        assert_eq!(reaches(web, site), [true; 2], "{transport:?}");
    }
}

#[test]
fn only_the_nameserver_that_was_asked_is_believed_and_noise_is_no_harm() {
    let mut scene = Scene::new();
    scene.enforce();
    let (site, other) = (scene.addrs("site"), scene.addrs("other"));
    scene.zone.set("www.example.com", &site.both());
    scene.zone.forge("www.example.com", &other.both());
    for web in scene.webs() {
        for to in scene.nameservers() {
            dns::babble(&web, to);
            let mut answer = dns::ask(&web, to, Transport::Udp, "www.example.com").unwrap();
            answer.sort_unstable();
            assert_eq!(answer, site.both(), "{to}");
        }
        assert_eq!(reaches(&web, site), [true; 2]);
        assert_eq!(reaches(&web, other), [false; 2]);
    }
}

#[test]
fn an_address_is_let_go_after_its_time_unless_a_connection_leads_there() {
    let mut scene = Scene::new();
    scene.enforce();
    let (site, other) = (scene.addrs("site"), scene.addrs("other"));
    let [web, _] = scene.webs();
    let to = scene.nameservers()[0];
    for (name, pod) in [("www.example.com", site), ("a.wild.example.com", other)] {
        scene.zone.set(name, &pod.both());
        scene.zone.shorten(name);
        dns::ask(&web, to, Transport::Udp, name).unwrap();
    }
    let [v4, _] = at(other, TCP);
    let open = || Connection::open(None, v4, REQUEST);
    let mut connection = web.netns.run(open).unwrap();
    let host = scene.world.host(1);
    let known = || metric(&host, "sluice_domain_addresses");
    assert_eq!(known(), Some(4));
    wait::until_true(PATIENCE * 3, "three of them to be let go", || {
        known() == Some(1)
    })
    .unwrap();
    assert_eq!(reaches(&web, site), [false; 2]);
    assert_eq!(reaches(&web, other), [true, false]);
    connection.get("/", false).unwrap();
}

#[test]
fn what_holds_is_explained_and_verified() {
    let mut scene = Scene::new();
    scene.enforce();
    scene
        .zone
        .set("www.example.com", &[dns::spare(1).v4.into()]);
    let [web, _] = scene.webs();
    dns::ask(
        &web,
        scene.nameservers()[0],
        Transport::Udp,
        "www.example.com",
    )
    .unwrap();
    let agent = &scene.world.plane.agents[0];
    for (to, verdict) in [
        ("203.0.113.1:443", "allowed"),
        ("203.0.113.2:443", "denied"),
    ] {
        let all = agent.query(&["policy", "explain", "default/web-1", to]);
        let all = all.unwrap();
        assert_eq!(all[0]["verdict"], verdict, "{all:#}");
        let named = all.to_string().contains("what www.example.com resolves to");
        assert!(named, "{all:#}");
    }
    let verified = agent.query(&["policy", "verify"]).unwrap();
    assert_eq!(verified["differences"], Value::Array(vec![]));
}
