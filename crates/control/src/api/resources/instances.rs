//! Instances: list, show, create, update, delete.

use axum::extract::State;
use axum::response::Response;
use coffer_core::access::Access;
use coffer_core::name::{Name, shown};
use coffer_core::units::VolumeSize;
use coffer_store::instance::InstanceView;
use coffer_wire::rest::v1::instance::{
    CreateInstance, CreateInstanceRequest, FlavorField, Instance, InstanceEnvelope, InstanceList,
    Nic, UpdateInstance, UpdateInstanceRequest, VolumeField,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::databases::wanted_database;
use super::users::wanted_user;
use crate::api::extract::{Json, Segments};
use crate::api::links::{Links, Page};
use crate::api::missing::not_there;
use crate::api::respond::{empty, ok, rows as rows_of};
use crate::api::views::instances::{Detail, detailed, instance};
use crate::app::commands::Content;
use crate::app::create::Wanted;
use crate::app::{AppState, RequestContext, create, instance as app_instance};
use crate::error::{Error, Kind, Result};
use crate::limits;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(list_detail))
        .routes(routes!(show, put, patch, delete))
}

/// Placements that Trove knows.
const LOCALITIES: [&str; 4] = [
    "affinity",
    "soft-affinity",
    "anti-affinity",
    "soft-anti-affinity",
];

/// The segment that names an instance.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct OneInstance {
    pub(in crate::api) instance_id: String,
}

/// The instances of the project, 20 on a page.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances", tag = "instances",
    params(("limit" = Option<u32>, Query), ("marker" = Option<String>, Query)),
    responses((status = 200, body = InstanceList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    page: Page,
) -> Result<Response> {
    listed(&app, &context, page, Detail::Brief).await
}

/// The same with what single views show.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/detail", tag = "instances",
    params(("limit" = Option<u32>, Query), ("marker" = Option<String>, Query)),
    responses((status = 200, body = InstanceList)))]
async fn list_detail(
    State(app): State<AppState>,
    context: RequestContext,
    page: Page,
) -> Result<Response> {
    listed(&app, &context, page, Detail::Full).await
}

async fn listed(
    app: &AppState,
    context: &RequestContext,
    page: Page,
    detail: Detail,
) -> Result<Response> {
    let page = page.usual();
    let (rows, next) = app_instance::list(app, context, page.id()?, page.limit).await?;
    let links = Links::new(app, context);
    let next = links.next(&page, next.map(|id| id.to_string()).as_deref());
    let mut instances = Vec::with_capacity(rows.len());
    // Pages go by id, which grows with time; inside a page the newest comes first.
    for row in rows.iter().rev() {
        instances.push(as_seen(app, context, row, &links, detail).await?);
    }
    let count = instances.len();
    let list = InstanceList {
        instances,
        links: next.clone(),
        instances_links: next,
    };
    Ok(rows_of(&list, count))
}

/// An instance as the asker sees it: admins see what it is made of.
async fn as_seen(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    links: &Links<'_>,
    detail: Detail,
) -> Result<Instance> {
    if context.is_admin() && detail == Detail::Full {
        // It may have gone between the two looks.
        let found = app.store.get_managed(view.instance.id).await?;
        if let Some(found) = found {
            return Ok(detailed(&found, links));
        }
    }
    Ok(instance(view, links, detail, context.is_admin()))
}

/// One instance.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}", tag = "instances",
    params(("instance_id" = String, Path)),
    responses((status = 200, body = InstanceEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let view = app_instance::get(&app, &context, &path.instance_id).await?;
    let links = Links::new(&app, &context);
    let instance = as_seen(&app, &context, &view, &links, Detail::Full).await?;
    Ok(ok(&InstanceEnvelope { instance }))
}

/// Asks for an instance.
#[utoipa::path(post, path = "/v1.0/{project_id}/instances", tag = "instances",
    request_body = CreateInstanceRequest,
    responses((status = 200, body = InstanceEnvelope)))]
async fn post(
    State(app): State<AppState>,
    context: RequestContext,
    Json(request): Json<CreateInstanceRequest>,
) -> Result<Response> {
    let wanted = wanted(&app, request.instance)?;
    let view = create::create(&app, &context, wanted).await?;
    let target = format!("instances/{}", view.instance.id);
    context.audit.target.get_or_init(|| target);
    let links = Links::new(&app, &context);
    let instance = as_seen(&app, &context, &view, &links, Detail::Full).await?;
    Ok(ok(&InstanceEnvelope { instance }))
}

/// The request's shape as a request of the domain.
fn wanted(app: &AppState, request: CreateInstance) -> Result<Wanted> {
    refuse_missing(&request)?;
    let name = request
        .name
        .ok_or_else(|| Error::invalid("instance 'name' is a required property"))?;
    if request
        .region_name
        .as_ref()
        .is_some_and(|region| *region != app.config.region)
    {
        let message = format!("this Coffer serves the region {} only", app.config.region);
        return Err(Error::new(Kind::BadRequest, "unknown-region", message));
    }
    let flavor = match (request.flavor_ref, request.flavor) {
        (Some(text), _) => text.0,
        (None, Some(FlavorField::Id(text) | FlavorField::Object { id: text })) => text.0,
        (None, None) => {
            return Err(Error::invalid(
                "instance 'flavorRef' is a required property",
            ));
        }
    };
    let (volume, volume_type) = volume(request.volume)?;
    let datastore = request.datastore.unwrap_or_default();
    let access = request.access.unwrap_or_default();
    Ok(Wanted {
        name: Name::parse("instance['name']", &name)?,
        flavor: flavor.rsplit('/').next().unwrap_or_default().to_owned(),
        volume,
        volume_type,
        datastore: datastore.datastore.filter(|text| !text.is_empty()),
        version: datastore
            .version
            .map(|text| text.0)
            .filter(|text| !text.is_empty()),
        version_number: datastore.version_number.map(|text| text.0),
        network: network(request.nics.unwrap_or_default())?,
        zone: request
            .availability_zone
            .filter(|zone| !zone.is_empty())
            .map(plain)
            .transpose()?,
        access: self::access(access.is_public, access.allowed_cidrs)?,
        content: Content {
            databases: request
                .databases
                .unwrap_or_default()
                .into_iter()
                .map(wanted_database)
                .collect(),
            users: request
                .users
                .map_or_else(Vec::new, |list| list.0)
                .into_iter()
                .map(wanted_user)
                .collect(),
        },
    })
}

/// What Trove has and this version has not: said before anything is looked up.
fn refuse_missing(request: &CreateInstance) -> Result<()> {
    let is_given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    if is_given(&request.restore_point) {
        return Err(not_there(
            "backups are not there yet: there is none to restore",
        ));
    }
    if is_given(&request.replica_of) {
        return Err(not_there("replicas are not there yet"));
    }
    if let Some(count) = request.replica_count.filter(|count| count.0 > 1) {
        let count = count.0;
        let message = format!(
            "Replica count only valid when creating replicas. Cannot create {count} instances."
        );
        return Err(Error::new(Kind::BadRequest, "not-a-replica", message));
    }
    if is_given(&request.configuration) {
        return Err(not_there("configuration groups are not there yet"));
    }
    if request
        .modules
        .as_ref()
        .is_some_and(|modules| !modules.is_empty())
    {
        return Err(not_there(
            "modules are not there: Coffer runs no foreign code in instances",
        ));
    }
    if let Some(locality) = request.locality.as_deref().filter(|text| !text.is_empty()) {
        if !LOCALITIES.contains(&locality) {
            let message = format!(
                "Invalid locality '{}'. Must be one of ['{}']",
                shown(locality),
                LOCALITIES.join("', '")
            );
            return Err(Error::new(Kind::BadRequest, "invalid", message));
        }
        return Err(not_there(
            "locality needs replicas, which are not there yet",
        ));
    }
    Ok(())
}

fn volume(field: Option<VolumeField>) -> Result<(Option<VolumeSize>, Option<String>)> {
    Ok(match field {
        None => (None, None),
        Some(VolumeField::Size(size)) => (Some(VolumeSize::gib(size.0)?), None),
        Some(VolumeField::Object(volume)) => {
            let kind = volume
                .volume_type
                .filter(|name| !name.is_empty())
                .map(plain)
                .transpose()?;
            (Some(VolumeSize::gib(volume.size.0)?), kind)
        }
    })
}

/// Text that is looked up in the store.
fn plain(text: String) -> Result<String> {
    if text.chars().any(char::is_control) || text.len() > 255 {
        return Err(Error::invalid(format!("'{}' is no name", shown(&text))));
    }
    Ok(text)
}

/// The network that `nics` names, if it names one.
fn network(nics: Vec<Nic>) -> Result<Option<String>> {
    let mut nics = nics.into_iter();
    let Some(nic) = nics.next() else {
        return Ok(None);
    };
    if nics.next().is_some() {
        return Err(Error::invalid("instance['nics'] has more than one element"));
    }
    if nic.port_id.is_some() || nic.subnet_id.is_some() {
        let message = "instance['nics'][0] names a port or subnet: name a network instead";
        return Err(Error::new(Kind::BadRequest, "no-ports", message));
    }
    if nic.ip_address.is_some() || nic.v4_fixed_ip.is_some() || nic.v6_fixed_ip.is_some() {
        let message = "instance['nics'][0] names an address: addresses are chosen by Coffer";
        return Err(Error::new(Kind::BadRequest, "no-fixed-addresses", message));
    }
    match (nic.network_id, nic.net_id) {
        (Some(one), Some(other)) if one != other => {
            Err(Error::invalid("instance['nics'][0] names two networks"))
        }
        (Some(id), _) | (None, Some(id)) => Ok(Some(id)),
        (None, None) => Ok(None),
    }
}

/// Who may reach an instance.
pub(in crate::api) fn access(
    is_public: Option<bool>,
    allowed_cidrs: Option<Vec<String>>,
) -> Result<Access> {
    let cidrs = allowed_cidrs.unwrap_or_default();
    if cidrs.len() > limits::CIDRS_MAX {
        return Err(Error::invalid(format!(
            "instance['access']['allowed_cidrs'] has more than {} elements",
            limits::CIDRS_MAX
        )));
    }
    let mut allowed = Vec::new();
    for (index, text) in cidrs.iter().enumerate() {
        let cidr = text.parse().map_err(|error| {
            Error::invalid(format!(
                "instance['access']['allowed_cidrs'][{index}]: {error}"
            ))
        })?;
        if !allowed.contains(&cidr) {
            allowed.push(cidr);
        }
    }
    Ok(Access {
        is_public: is_public.unwrap_or(false),
        allowed_cidrs: allowed,
    })
}

/// Changes an instance: its name, and at most one thing more.
#[utoipa::path(put, path = "/v1.0/{project_id}/instances/{instance_id}", tag = "instances",
    params(("instance_id" = String, Path)), request_body = UpdateInstanceRequest,
    responses((status = 202)))]
async fn put(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(request): Json<UpdateInstanceRequest>,
) -> Result<Response> {
    let view = app_instance::get(&app, &context, &path.instance_id).await?;
    update(&app, &context, &view, request.instance).await
}

/// The older alias of PUT, without `access`.
#[utoipa::path(patch, path = "/v1.0/{project_id}/instances/{instance_id}", tag = "instances",
    params(("instance_id" = String, Path)), request_body = UpdateInstanceRequest,
    responses((status = 202)))]
async fn patch(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(request): Json<UpdateInstanceRequest>,
) -> Result<Response> {
    if request.instance.access.is_some() {
        return Err(Error::invalid("instance 'access' is changed by PUT"));
    }
    let view = app_instance::get(&app, &context, &path.instance_id).await?;
    update(&app, &context, &view, request.instance).await
}

async fn update(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    change: UpdateInstance,
) -> Result<Response> {
    let others = [
        change.configuration.is_some(),
        change.replica_of.is_some() || change.slave_of.is_some(),
        change.datastore_version.is_some(),
        change.access.is_some(),
    ];
    if others.into_iter().filter(|&is_given| is_given).count() > 1 {
        let message = "Only one attribute (except 'name') is allowed to update.";
        return Err(Error::new(Kind::BadRequest, "too-many-changes", message));
    }
    // What is refused is refused before anything is changed.
    refuse_update(view, &change)?;
    let name = change
        .name
        .map(|name| Name::parse("instance['name']", &name))
        .transpose()?;
    let access = match change.access {
        Some(asked) => Some(self::access(asked.is_public, asked.allowed_cidrs)?),
        None => None,
    };
    if let Some(access) = access.filter(|access| *access != view.instance.spec.access) {
        app_instance::set_access(app, context, view, access).await?;
    }
    if let Some(name) = name {
        app_instance::rename(app, context, view, &name).await?;
    }
    Ok(empty(StatusCode::ACCEPTED))
}

fn refuse_update(view: &InstanceView, change: &UpdateInstance) -> Result<()> {
    if change.replica_of.is_some() || change.slave_of.is_some() {
        let message = format!("Instance {} is not a replica.", view.instance.id);
        return Err(Error::new(Kind::BadRequest, "not-a-replica", message));
    }
    if change.datastore_version.is_some() {
        return Err(not_there("upgrades are not there yet"));
    }
    match &change.configuration {
        // None is attached, so that detaching is done already.
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(empty)) if empty.is_empty() => Ok(()),
        Some(_) => Err(not_there("configuration groups are not there yet")),
    }
}

/// Deletes an instance, in whatever state it is.
#[utoipa::path(delete, path = "/v1.0/{project_id}/instances/{instance_id}", tag = "instances",
    params(("instance_id" = String, Path)), responses((status = 202)))]
async fn delete(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let view = app_instance::get(&app, &context, &path.instance_id).await?;
    app_instance::delete(&app, &context, &view).await?;
    Ok(empty(StatusCode::ACCEPTED))
}
