//! Where services are: identity and database, both of Coffer's own.

use coffer_wire::rest::identity::{Service, ServiceEndpoint};

/// The services that a token of this project may use. `base` is the API's URL without a slash at
/// its end; without a project there is no database service.
pub fn catalog(base: &str, region: &str, tenant_id: Option<&str>) -> Vec<Service> {
    let mut services = vec![service(
        "coffer-identity",
        "identity",
        format!("{base}/identity/v3"),
        region,
    )];
    if let Some(tenant_id) = tenant_id {
        let url = format!("{base}/v1.0/{tenant_id}");
        services.push(service("coffer-database", "database", url, region));
    }
    services
}

fn service(id: &str, kind: &str, url: String, region: &str) -> Service {
    let endpoints = ["public", "internal", "admin"]
        .map(|interface| ServiceEndpoint {
            id: format!("{id}-{interface}"),
            interface: interface.to_owned(),
            region: region.to_owned(),
            region_id: region.to_owned(),
            url: url.clone(),
        })
        .into();
    Service {
        id: id.to_owned(),
        kind: kind.to_owned(),
        name: "coffer".to_owned(),
        endpoints,
    }
}
