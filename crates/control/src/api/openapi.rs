//! The OpenAPI document: made from the routes, then given what all of them share.

use coffer_wire::fault::{Fault, FaultBody};
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required};

use super::router;

#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(
        title = "Coffer",
        description = "Database-as-a-Service: Trove's API version 1.0, Coffer's own routes, and \
                       the subset of Keystone's version 3 that clients log in with.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Fault, FaultBody))
)]
struct Head;

/// The document without paths.
pub(super) fn head() -> OpenApi {
    Head::openapi()
}

/// The document, as JSON text with two spaces of indent.
pub fn openapi_json() -> String {
    let (_, mut document) = router::documented().split_for_parts();
    for (path, item) in &mut document.paths.paths {
        let needs_token = path.starts_with(super::rules::PREFIX);
        for operation in operations(item) {
            complete(operation, needs_token, path.contains("{project_id}"));
        }
    }
    let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Auth-Token")));
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("token", scheme);
    let mut text = serde_json::to_string_pretty(&document)
        .expect("the document is plain data, which always serialises");
    text.push('\n');
    text
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ]
    .into_iter()
    .flatten()
}

/// Adds the project's parameter, the token, and the shape of refusals.
fn complete(operation: &mut Operation, needs_token: bool, has_project: bool) {
    if has_project {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let project = ParameterBuilder::new()
            .name("project_id")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("Project of the token."))
            .schema(Some(text))
            .build();
        operation
            .parameters
            .get_or_insert_default()
            .insert(0, RefOr::T(project));
    }
    if needs_token {
        let none: [String; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new("token", none)]);
    }
    let body = ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("FaultBody"))))
        .build();
    let refused = ResponseBuilder::new()
        .description("Refused; the fault says why.")
        .content("application/json", body)
        .build();
    operation
        .responses
        .responses
        .entry("default".to_owned())
        .or_insert(RefOr::T(refused));
}
