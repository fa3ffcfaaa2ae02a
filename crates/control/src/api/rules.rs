//! Which rule each route falls under: the one table that the guard, the audit trail and the
//! coverage test read. A route below a project that is not here does not exist.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Method;

use crate::app::policy::Rule;

/// What every path of the table begins with.
pub(super) const PREFIX: &str = "/v1.0/{project_id}";

const INSTANCE: &str = "/instances/{instance_id}";

/// A route: verbs, path after the project, rule, and, where it is known but not there, why.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Verbs, separated by spaces.
    pub verbs: &'static str,
    /// Path after `/v1.0/{project_id}`.
    pub path: &'static str,
    /// Rule it falls under.
    pub rule: Rule,
    /// Why it answers 501; `None` for a route that works.
    pub missing: Option<&'static str>,
}

const fn route(verbs: &'static str, path: &'static str, rule: Rule) -> Route {
    Route {
        verbs,
        path,
        rule,
        missing: None,
    }
}

const fn missing(verbs: &'static str, path: &'static str, rule: Rule, why: &'static str) -> Route {
    Route {
        verbs,
        path,
        rule,
        missing: Some(why),
    }
}

/// Routes that work.
const SERVED: &[Route] = &[
    route("GET", "/instances", Rule::project("instance:index")),
    route("GET", "/instances/detail", Rule::project("instance:detail")),
    route("POST", "/instances", Rule::project("instance:create")),
    route("GET", INSTANCE, Rule::project("instance:show")),
    route("PUT PATCH", INSTANCE, Rule::project("instance:update")),
    route("DELETE", INSTANCE, Rule::project("instance:delete")),
    route(
        "POST",
        "/instances/{instance_id}/action",
        Rule::project("instance:action"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/explain",
        Rule::project("coffer:instance:explain"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/events",
        Rule::project("coffer:instance:events"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/connect",
        Rule::project("coffer:instance:connection"),
    ),
    route(
        "POST",
        "/instances/{instance_id}/connect",
        Rule::project("coffer:instance:connect"),
    ),
    route(
        "POST",
        "/instances/{instance_id}/visits",
        Rule::project("coffer:instance:visit"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/databases",
        Rule::project("instance:extension:database:index"),
    ),
    route(
        "POST",
        "/instances/{instance_id}/databases",
        Rule::project("instance:extension:database:create"),
    ),
    route(
        "DELETE",
        "/instances/{instance_id}/databases/{name}",
        Rule::project("instance:extension:database:delete"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/users",
        Rule::project("instance:extension:user:index"),
    ),
    route(
        "POST",
        "/instances/{instance_id}/users",
        Rule::project("instance:extension:user:create"),
    ),
    route(
        "PUT",
        "/instances/{instance_id}/users",
        Rule::project("instance:extension:user:update_all"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/users/{user}",
        Rule::project("instance:extension:user:show"),
    ),
    route(
        "POST",
        "/instances/{instance_id}/users/{user}",
        Rule::project("instance:extension:user:create"),
    ),
    route(
        "PUT",
        "/instances/{instance_id}/users/{user}",
        Rule::project("instance:extension:user:update"),
    ),
    route(
        "DELETE",
        "/instances/{instance_id}/users/{user}",
        Rule::project("instance:extension:user:delete"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/users/{user}/databases",
        Rule::project("instance:extension:user_access:index"),
    ),
    route(
        "PUT",
        "/instances/{instance_id}/users/{user}/databases",
        Rule::project("instance:extension:user_access:update"),
    ),
    route(
        "DELETE",
        "/instances/{instance_id}/users/{user}/databases/{name}",
        Rule::project("instance:extension:user_access:delete"),
    ),
    route(
        "GET",
        "/instances/{instance_id}/root",
        Rule::project("instance:extension:root:index"),
    ),
    route(
        "POST",
        "/instances/{instance_id}/root",
        Rule::project("instance:extension:root:create"),
    ),
    route(
        "DELETE",
        "/instances/{instance_id}/root",
        Rule::project("instance:extension:root:delete"),
    ),
    route(
        "PUT",
        "/instances/{instance_id}/users/{user}/update",
        Rule::project("instance:extension:user:update"),
    ),
    route(
        "PUT",
        "/instances/{instance_id}/users/{user}/databases/{name}",
        Rule::project("instance:extension:user_access:update"),
    ),
    route(
        "DELETE",
        "/instances/{instance_id}/root/delete",
        Rule::project("instance:extension:root:delete"),
    ),
    route("GET", "/datastores", Rule::project("datastore:index")),
    route(
        "GET",
        "/datastores/{datastore}",
        Rule::project("datastore:show"),
    ),
    route(
        "GET",
        "/datastores/{datastore}/versions",
        Rule::project("datastore:version_index"),
    ),
    route(
        "GET",
        "/datastores/{datastore}/versions/{version}",
        Rule::project("datastore:version_show"),
    ),
    route(
        "GET",
        "/datastores/versions/{version}",
        Rule::project("datastore:version_show_by_uuid"),
    ),
    route(
        "GET",
        "/datastores/{datastore}/versions/{version}/flavors",
        Rule::project("datastore:list_associated_flavors"),
    ),
    route(
        "GET",
        "/datastores/{datastore}/versions/{version}/volume-types",
        Rule::project("datastore:list_associated_volume_types"),
    ),
    route("GET", "/flavors", Rule::project("flavor:index")),
    route("GET", "/flavors/{flavor}", Rule::project("flavor:show")),
    route("GET", "/limits", Rule::project("limits:index")),
    route("GET", "/networks", Rule::project("coffer:network:index")),
    route(
        "GET",
        "/networks/{network_id}",
        Rule::project("coffer:network:show"),
    ),
    route(
        "GET",
        "/mgmt/instances",
        Rule::management("mgmt:instance:index"),
    ),
    route(
        "GET",
        "/mgmt/instances/{instance_id}",
        Rule::management("mgmt:instance:show"),
    ),
    route(
        "POST",
        "/mgmt/instances/{instance_id}/action",
        Rule::management("mgmt:instance:action"),
    ),
    route(
        "GET",
        "/mgmt/instances/{instance_id}/root",
        Rule::management("mgmt:instance:root"),
    ),
    // Its owner may read a project's quotas: the handler decides.
    route(
        "GET",
        "/mgmt/quotas/{project}",
        Rule::project("mgmt:quota:show"),
    ),
    route(
        "PUT",
        "/mgmt/quotas/{project}",
        Rule::management("mgmt:quota:update"),
    ),
    route(
        "GET",
        "/admin/projects",
        Rule::admin("coffer:project:index"),
    ),
    route(
        "POST",
        "/admin/projects",
        Rule::admin("coffer:project:create"),
    ),
    route(
        "GET",
        "/admin/projects/{project}",
        Rule::admin("coffer:project:show"),
    ),
    route(
        "PATCH",
        "/admin/projects/{project}",
        Rule::admin("coffer:project:update"),
    ),
    route(
        "DELETE",
        "/admin/projects/{project}",
        Rule::admin("coffer:project:delete"),
    ),
    route("GET", "/admin/users", Rule::admin("coffer:user:index")),
    route("POST", "/admin/users", Rule::admin("coffer:user:create")),
    route(
        "GET",
        "/admin/users/{user}",
        Rule::admin("coffer:user:show"),
    ),
    route(
        "PATCH",
        "/admin/users/{user}",
        Rule::admin("coffer:user:update"),
    ),
    route(
        "DELETE",
        "/admin/users/{user}",
        Rule::admin("coffer:user:delete"),
    ),
    route("GET", "/admin/roles", Rule::admin("coffer:role:index")),
    route("POST", "/admin/roles", Rule::admin("coffer:role:create")),
    route(
        "GET",
        "/admin/roles/{role}",
        Rule::admin("coffer:role:show"),
    ),
    route(
        "DELETE",
        "/admin/roles/{role}",
        Rule::admin("coffer:role:delete"),
    ),
    route(
        "GET",
        "/admin/assignments",
        Rule::admin("coffer:assignment:index"),
    ),
    route(
        "PUT",
        "/admin/projects/{project}/users/{user}/roles/{role}",
        Rule::admin("coffer:assignment:create"),
    ),
    route(
        "DELETE",
        "/admin/projects/{project}/users/{user}/roles/{role}",
        Rule::admin("coffer:assignment:delete"),
    ),
    route("GET", "/admin/flavors", Rule::admin("coffer:flavor:index")),
    route(
        "POST",
        "/admin/flavors",
        Rule::admin("coffer:flavor:create"),
    ),
    route(
        "GET",
        "/admin/flavors/{flavor}",
        Rule::admin("coffer:flavor:show"),
    ),
    route(
        "PATCH",
        "/admin/flavors/{flavor}",
        Rule::admin("coffer:flavor:update"),
    ),
    route(
        "DELETE",
        "/admin/flavors/{flavor}",
        Rule::admin("coffer:flavor:delete"),
    ),
    route(
        "GET",
        "/admin/volume-types",
        Rule::admin("coffer:volume_type:index"),
    ),
    route(
        "POST",
        "/admin/volume-types",
        Rule::admin("coffer:volume_type:create"),
    ),
    route(
        "GET",
        "/admin/volume-types/{name}",
        Rule::admin("coffer:volume_type:show"),
    ),
    route(
        "PATCH",
        "/admin/volume-types/{name}",
        Rule::admin("coffer:volume_type:update"),
    ),
    route(
        "DELETE",
        "/admin/volume-types/{name}",
        Rule::admin("coffer:volume_type:delete"),
    ),
    route("GET", "/admin/zones", Rule::admin("coffer:zone:index")),
    route("POST", "/admin/zones", Rule::admin("coffer:zone:create")),
    route(
        "GET",
        "/admin/zones/{name}",
        Rule::admin("coffer:zone:show"),
    ),
    route(
        "PATCH",
        "/admin/zones/{name}",
        Rule::admin("coffer:zone:update"),
    ),
    route(
        "DELETE",
        "/admin/zones/{name}",
        Rule::admin("coffer:zone:delete"),
    ),
    route("GET", "/admin/audit", Rule::admin("coffer:audit:index")),
    route(
        "GET",
        "/admin/trackers",
        Rule::admin("coffer:tracker:index"),
    ),
];

const BACKUPS: &str = "backups are not there yet: this version of Coffer takes none";
const GROUPS: &str = "configuration groups are not there yet: the engine's configuration is sized \
                      to the flavor";
const CLUSTERS: &str = "clusters are not there yet";
const MODULES: &str = "modules are not there: Coffer runs no foreign code in instances";
const LOGS: &str = "guest logs are not there yet";
const SSL: &str = "TLS is always on, with a certificate of the project's own authority: there is \
                   nothing to switch";
const AGENT: &str = "the guest agent is asked by Coffer alone; see explain";
const VERSIONS: &str = "datastore versions are made by building images on the host of Coffer";

/// Trove's routes that are known and not there.
const MISSING: &[Route] = &[
    missing(
        "GET",
        "/instances/{instance_id}/backups",
        Rule::project("instance:backups"),
        BACKUPS,
    ),
    missing(
        "GET",
        "/instances/{instance_id}/configuration",
        Rule::project("instance:configuration"),
        GROUPS,
    ),
    missing(
        "GET",
        "/instances/{instance_id}/log",
        Rule::project("instance:guest_log_list"),
        LOGS,
    ),
    missing(
        "POST",
        "/instances/{instance_id}/log",
        Rule::project("instance:guest_log"),
        LOGS,
    ),
    missing(
        "GET",
        "/instances/{instance_id}/ssl",
        Rule::project("instance:show"),
        SSL,
    ),
    missing(
        "POST",
        "/instances/{instance_id}/ssl",
        Rule::project("instance:update"),
        SSL,
    ),
    missing(
        "GET POST",
        "/instances/{instance_id}/modules",
        Rule::project("instance:module"),
        MODULES,
    ),
    missing(
        "DELETE",
        "/instances/{instance_id}/modules/{module_id}",
        Rule::project("instance:module_remove"),
        MODULES,
    ),
    missing(
        "GET",
        "/instances/{instance_id}/databases/{name}",
        Rule::project("instance:extension:database:show"),
        "one database is not shown by itself: list the databases",
    ),
    missing("GET POST", "/backups", Rule::project("backup"), BACKUPS),
    missing(
        "GET DELETE",
        "/backups/{backup_id}",
        Rule::project("backup"),
        BACKUPS,
    ),
    missing(
        "GET POST DELETE",
        "/backup_strategies",
        Rule::project("backup_strategy"),
        BACKUPS,
    ),
    missing(
        "GET POST",
        "/configurations",
        Rule::project("configuration"),
        GROUPS,
    ),
    missing(
        "GET PUT PATCH DELETE",
        "/configurations/{configuration_id}",
        Rule::project("configuration"),
        GROUPS,
    ),
    missing(
        "GET",
        "/configurations/{configuration_id}/instances",
        Rule::project("configuration:instances"),
        GROUPS,
    ),
    missing(
        "GET",
        "/datastores/{datastore}/versions/{version}/parameters",
        Rule::project("configuration-parameter:index"),
        GROUPS,
    ),
    missing(
        "GET",
        "/datastores/{datastore}/versions/{version}/parameters/{name}",
        Rule::project("configuration-parameter:show"),
        GROUPS,
    ),
    missing(
        "GET",
        "/datastores/versions/{version}/parameters",
        Rule::project("configuration-parameter:index_by_version"),
        GROUPS,
    ),
    missing(
        "GET",
        "/datastores/versions/{version}/parameters/{name}",
        Rule::project("configuration-parameter:show_by_version"),
        GROUPS,
    ),
    missing(
        "DELETE",
        "/datastores/{datastore}",
        Rule::admin("datastore:delete"),
        VERSIONS,
    ),
    missing("GET POST", "/clusters", Rule::project("cluster"), CLUSTERS),
    missing(
        "GET POST DELETE",
        "/clusters/{cluster_id}",
        Rule::project("cluster"),
        CLUSTERS,
    ),
    missing(
        "GET",
        "/clusters/{cluster_id}/instances/{instance_id}",
        Rule::project("cluster:show_instance"),
        CLUSTERS,
    ),
    missing(
        "GET POST",
        "/clusters/{cluster_id}/root",
        Rule::project("cluster:extension:root"),
        CLUSTERS,
    ),
    missing("GET POST", "/modules", Rule::project("module"), MODULES),
    missing(
        "GET PUT DELETE",
        "/modules/{module_id}",
        Rule::project("module"),
        MODULES,
    ),
    missing(
        "GET PUT",
        "/modules/{module_id}/instances",
        Rule::project("module"),
        MODULES,
    ),
    missing(
        "GET",
        "/mgmt/instances/{instance_id}/diagnostics",
        Rule::management("mgmt:instance:diagnostics"),
        AGENT,
    ),
    missing(
        "GET",
        "/mgmt/instances/{instance_id}/hwinfo",
        Rule::management("mgmt:instance:hwinfo"),
        AGENT,
    ),
    missing(
        "GET",
        "/mgmt/instances/{instance_id}/rpc_ping",
        Rule::management("mgmt:instance:rpc_ping"),
        AGENT,
    ),
    missing(
        "POST",
        "/mgmt/instances/{instance_id}/upgrade",
        Rule::management("mgmt:instance:upgrade"),
        AGENT,
    ),
    missing(
        "GET",
        "/mgmt/clusters",
        Rule::management("mgmt:cluster:index"),
        CLUSTERS,
    ),
    missing(
        "GET",
        "/mgmt/clusters/{cluster_id}",
        Rule::management("mgmt:cluster:show"),
        CLUSTERS,
    ),
    missing(
        "POST",
        "/mgmt/clusters/{cluster_id}/action",
        Rule::management("mgmt:cluster:action"),
        CLUSTERS,
    ),
    missing(
        "GET POST",
        "/mgmt/datastores/versions/{version}/parameters",
        Rule::management("mgmt:parameter"),
        GROUPS,
    ),
    missing(
        "GET PUT DELETE",
        "/mgmt/datastores/versions/{version}/parameters/{name}",
        Rule::management("mgmt:parameter"),
        GROUPS,
    ),
    missing(
        "GET POST",
        "/mgmt/datastore-versions",
        Rule::management("mgmt:datastore_version"),
        VERSIONS,
    ),
    missing(
        "GET PATCH DELETE",
        "/mgmt/datastore-versions/{version}",
        Rule::management("mgmt:datastore_version"),
        VERSIONS,
    ),
];

/// Every route below a project.
pub fn all() -> impl Iterator<Item = &'static Route> {
    SERVED.iter().chain(MISSING)
}

/// The rule of a route, by the path that the router matched.
pub(super) fn find(method: &Method, matched: &str) -> Option<Rule> {
    static TABLE: LazyLock<HashMap<(&str, &str), Rule>> = LazyLock::new(|| {
        let of_route = |route: &'static Route| {
            route
                .verbs
                .split(' ')
                .map(move |verb| ((verb, route.path), route.rule))
        };
        all().flat_map(of_route).collect()
    });
    let verb = if *method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    TABLE.get(&(verb, matched.strip_prefix(PREFIX)?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_listed_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for route in all() {
            for verb in route.verbs.split(' ') {
                assert!(seen.insert((verb, route.path)), "{verb} {}", route.path);
            }
        }
    }

    #[test]
    fn finds_by_the_matched_path() {
        let rule = find(&Method::HEAD, "/v1.0/{project_id}/instances").unwrap();
        assert_eq!(rule.name, "instance:index");
        assert_eq!(find(&Method::GET, "/v1.0/{project_id}"), None);
        assert_eq!(find(&Method::OPTIONS, "/v1.0/{project_id}/instances"), None);
    }
}
