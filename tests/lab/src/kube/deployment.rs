//! As much of a Deployment as the controller acts on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// An `apps/v1` Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// Pods it is to have.
    pub replicas: usize,
    /// Pods more than that while it rolls.
    pub max_surge: usize,
    /// Available pods less than that while it rolls.
    pub max_unavailable: usize,
    /// The labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// The version its pods answer with: their label `version` or `track`, or the image's tag.
    pub version: String,
    /// The TCP ports its pods serve.
    pub ports: Vec<(String, u16)>,
    /// The UDP ports its pods serve.
    pub udp_ports: Vec<(String, u16)>,
    /// How long a pod that is deleted goes on as before (`lifecycle.preStop.sleep`).
    pub pre_stop: Duration,
}

impl Deployment {
    /// Reads the object; `maxSurge` and `maxUnavailable` as numbers only.
    ///
    /// # Errors
    /// A field that is needed is not there; the error names it.
    pub fn parse(object: &Value) -> Result<Deployment> {
        ensure!(
            object["kind"] == "Deployment",
            "not a Deployment: {}",
            object["kind"]
        );
        let name = object["metadata"]["name"]
            .as_str()
            .context("metadata.name is missing")?;
        let (spec, template) = (&object["spec"], &object["spec"]["template"]);
        let labels: BTreeMap<String, String> =
            serde_json::from_value(template["metadata"]["labels"].clone())
                .with_context(|| format!("{name}: spec.template.metadata.labels"))?;
        let container = &template["spec"]["containers"][0];
        let image = container["image"].as_str().unwrap_or_default();
        let tag = image.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let version = labels.get("version").or_else(|| labels.get("track"));
        let rolling = &spec["strategy"]["rollingUpdate"];
        let number = |value: &Value, default| value.as_u64().map_or(default, |n| n as usize);
        Ok(Deployment {
            name: name.to_owned(),
            replicas: number(&spec["replicas"], 1),
            max_surge: number(&rolling["maxSurge"], 1),
            max_unavailable: number(&rolling["maxUnavailable"], 0),
            version: version.map_or(tag, String::as_str).to_owned(),
            ports: ports(container, false).with_context(|| format!("{name}: ports"))?,
            udp_ports: ports(container, true).with_context(|| format!("{name}: ports"))?,
            pre_stop: Duration::from_secs(
                container["lifecycle"]["preStop"]["sleep"]["seconds"]
                    .as_u64()
                    .unwrap_or(0),
            ),
            labels,
        })
    }
}

/// The container's ports of one protocol.
fn ports(container: &Value, udp: bool) -> Result<Vec<(String, u16)>> {
    let Some(ports) = container["ports"].as_array() else {
        return Ok(Vec::new());
    };
    let of_protocol = ports
        .iter()
        .filter(|port| (port["protocol"] == "UDP") == udp);
    of_protocol
        .map(|port| {
            let number = port["containerPort"]
                .as_u64()
                .context("containerPort is missing")?;
            let name = port["name"]
                .as_str()
                .map_or_else(|| format!("p{number}"), str::to_owned);
            Ok((
                name,
                u16::try_from(number).context("containerPort is no port")?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::manifests::from_yaml;

    const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 5
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 2, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - image: web:2.0.0
        ports: [{containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
        lifecycle: {preStop: {sleep: {seconds: 1}}}
";

    #[test]
    fn the_guides_form_is_read() {
        let objects = from_yaml(DEPLOYMENT).unwrap();
        let expected = Deployment {
            name: "web".into(),
            replicas: 5,
            max_surge: 2,
            max_unavailable: 1,
            labels: BTreeMap::from([("app".into(), "web".into())]),
            version: "2.0.0".into(),
            ports: vec![("p8080".into(), 8080)],
            udp_ports: vec![("dns".into(), 53)],
            pre_stop: Duration::from_secs(1),
        };
        assert_eq!(Deployment::parse(&objects[0]).unwrap(), expected);
    }

    #[test]
    fn a_missing_field_is_named() {
        let objects = from_yaml(&DEPLOYMENT.replace("labels", "lables")).unwrap();
        let error = format!("{:#}", Deployment::parse(&objects[0]).unwrap_err());
        assert!(error.contains("spec.template.metadata.labels"), "{error}");
    }
}
