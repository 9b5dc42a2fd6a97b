//! Bodies that are not what the contract asks for: each is refused by name, and nothing is written.

use hyper::Method;
use serde_json::{Value, json};

use super::{app, id};
use crate::support::{Reply, TestApp, User};

async fn raw(user: &User, body: impl Into<Vec<u8>>) -> Reply {
    user.call(Method::POST, user.tasks()).header("Content-Type", "application/json").body(body).send().await
}

async fn has_no_task(user: &User) {
    assert_eq!(user.list("").await.is(200).json(), json!([]));
}

async fn user() -> (TestApp, User) {
    let app = app().await;
    let user = app.new_user();
    (app, user)
}

#[tokio::test]
async fn a_character_is_a_code_point() {
    let (_app, ann) = user().await;

    for unit in ["x", "é", "水", "🌱", "\u{10FFFF}"] {
        let (longest, description) = (unit.repeat(200), unit.repeat(1000));
        let task = ann.post(json!({"title": longest, "description": description})).await.is(201).json();
        assert_eq!((&task["title"], &task["description"]), (&json!(longest), &json!(description)));
        assert_eq!(ann.get(id(&task)).await.json(), task);
        ann.delete(id(&task)).await.is(204);

        let reply = ann.post(json!({"title": unit.repeat(201)})).await;
        reply.is_invalid(&[("/title", "maxLength")]);
        let violation = json!({
            "in": "body", "pointer": "/title", "code": "maxLength", "limit": 200,
            "detail": "must have at most 200 characters; it has 201",
        });
        assert_eq!(reply.json()["errors"], json!([violation]));
        ann.post(json!({"title": "t", "description": unit.repeat(1001)}))
            .await
            .is_invalid(&[("/description", "maxLength")]);
    }
    // Every character escaped: the longest form that the longest valid body has.
    let escaped =
        format!(r#"{{"title":"{}","description":"{}"}}"#, r"\ud83c\udf31".repeat(200), r"\ud83c\udf31".repeat(1000));
    raw(&ann, escaped).await.is(201);
}

#[tokio::test]
async fn a_title_can_be_seen_and_has_no_control_characters() {
    let (_app, ann) = user().await;

    for title in [
        " ",
        "\t",
        "\u{A0}",
        "\u{3000}",
        "\u{200B}",
        "\u{FEFF}",
        "\u{2028}",
        "\u{AD}",
        "\u{FE0F}",
        "\u{2066}",
        " \u{200D} ",
        "\u{2800}",
        "\u{3164}",
        "\u{E0001}\u{E0041}\u{E007F}",
        "\u{E0100}\u{E01EF}",
    ] {
        ann.post(json!({"title": title})).await.is_invalid(&[("/title", "pattern")]);
    }
    for control in ["\0", "\n", "\r", "\t", "\u{1B}", "\u{7F}", "\u{85}", "\u{9F}"] {
        ann.post(json!({"title": format!("a{control}b")})).await.is_invalid(&[("/title", "pattern")]);
    }
    let detail = |reply: Reply| reply.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
    let empty = ann.post(json!({"title": ""})).await;
    empty.is_invalid(&[("/title", "minLength")]);
    assert_eq!(detail(empty), "must not be empty");
    assert_eq!(detail(ann.post(json!({"title": " "})).await), "must not be blank");
    let lines = ann.post(json!({"title": "a\nb"})).await;
    assert_eq!(detail(lines), "must not have line breaks or other control characters");
    has_no_task(&ann).await;
}

#[tokio::test]
async fn nul_is_refused_in_a_description_and_other_control_characters_are_not() {
    let (_app, ann) = user().await;

    ann.post(json!({"title": "t", "description": "a\0b"})).await.is_invalid(&[("/description", "pattern")]);
    raw(&ann, r#"{"title":"t","description":"\u0000"}"#).await.is_invalid(&[("/description", "pattern")]);
    has_no_task(&ann).await;
    ann.post(json!({"title": "t", "description": "a\nb\tc\r\n\u{1B}"})).await.is(201);
}

#[tokio::test]
async fn nothing_is_coerced() {
    let (_app, ann) = user().await;

    for title in [json!(1), json!(1.5), json!(true), json!(null), json!([]), json!({}), json!(["t"])] {
        ann.post(json!({"title": title})).await.is_invalid(&[("/title", "type")]);
    }
    for description in [json!(1), json!(false), json!([]), json!({})] {
        ann.post(json!({"title": "t", "description": description})).await.is_invalid(&[("/description", "type")]);
    }
    for completed in [json!("true"), json!(1), json!(0), json!(null), json!([])] {
        ann.post(json!({"title": "t", "completed": completed})).await.is_invalid(&[("/completed", "type")]);
    }
    has_no_task(&ann).await;
}

#[tokio::test]
async fn every_violation_is_told_at_once() {
    let (_app, ann) = user().await;

    let reply = ann.post(json!({"description": 7, "completed": "no", "a/b~c": 1, "title_": "t"})).await;

    reply.is_invalid(&[
        ("/description", "type"),
        ("/completed", "type"),
        ("/a~1b~0c", "additionalProperties"),
        ("/title_", "additionalProperties"),
        ("/title", "required"),
    ]);
    assert_eq!(
        reply.detail(),
        "The request breaks the contract: /description must be null or text; /completed must be true or false; \
         /a~1b~0c is not a field that is known here; /title_ is not a field that is known here; /title is missing."
    );
    has_no_task(&ann).await;
}

#[tokio::test]
async fn the_sentence_stays_short_where_the_list_is_long() {
    let (_app, ann) = user().await;
    let mut body = json!({"title": "t"});
    for n in 0..500 {
        body[format!("f{n}")] = n.into();
    }

    let reply = ann.post(body).await;

    assert_eq!(reply.is_problem(422, "invalid-request").json()["errors"].as_array().unwrap().len(), 100);
    let end = "/f9 is not a field that is known here; and 490 more, of which `errors` lists the first 90.";
    assert!(reply.detail().ends_with(end), "{}", reply.detail());

    // Each field is named whole in the list, and by its beginning in the sentence.
    let long = "🌱/".repeat(500);
    let reply = ann.post(json!({"title": "t", long.clone(): 1})).await;
    reply.is_invalid(&[(&format!("/{}", long.replace('/', "~1")), "additionalProperties")]);
    assert!(reply.detail().ends_with("~1🌱~… is not a field that is known here."), "{}", reply.detail());
}

#[tokio::test]
async fn only_an_object_is_a_task() {
    let (_app, ann) = user().await;

    for body in ["[]", "null", "1", "true", "\"t\"", "[{\"title\":\"t\"}]"] {
        raw(&ann, body).await.is_invalid(&[("", "type")]);
    }
    raw(&ann, "{}").await.is_invalid(&[("/title", "required")]);
    has_no_task(&ann).await;
}

#[tokio::test]
async fn what_is_no_json_is_refused_and_the_place_is_told() {
    let (_app, ann) = user().await;

    let deep = "[".repeat(100_000 / 2);
    let bodies: [&[u8]; 12] = [
        b" ",
        b"{",
        b"{\"title\":\"t\"",
        b"{'title':'t'}",
        b"{\"title\":\"t\",}",
        b"{\"title\":\"t\"} {}",
        b"title=t",
        b"{\"title\":\"\xFF\"}",
        b"{\"title\":\"\xED\xA0\x80\"}",
        br#"{"title":"\ud800"}"#,
        br#"{"title":"\udc00 \ud800x"}"#,
        deep.as_bytes(),
    ];
    for body in bodies {
        let reply = raw(&ann, body).await;
        let detail = reply.is_problem(400, "malformed-body").detail();
        assert!(
            detail.starts_with("The body is not valid JSON: ") && detail.contains(" at line 1 column "),
            "{detail}"
        );
    }
    for (mark, name) in [(&b"\xEF\xBB\xBF"[..], "UTF-8"), (b"\xFF\xFE", "UTF-16"), (b"\xFE\xFF", "UTF-16")] {
        let detail = raw(&ann, [mark, b"{\"title\":\"t\"}"].concat()).await.is_problem(400, "malformed-body").detail();
        assert!(detail.contains(&format!("it begins with a byte order mark ({name})")), "{detail}");
    }
    has_no_task(&ann).await;
}

#[tokio::test]
async fn an_empty_body_is_missing_where_one_is_needed_and_none_where_not_whatever_it_is_called() {
    let (_app, ann) = user().await;
    let task = ann.create("t").await;

    for media_type in ["", "application/json", "application/x-www-form-urlencoded", "application/octet-stream"] {
        let with = |call: crate::support::Call| match media_type {
            "" => call,
            _ => call.header("Content-Type", media_type),
        };
        for call in [ann.call(Method::POST, ann.tasks()), ann.call(Method::PUT, ann.task(id(&task)))] {
            let reply = with(call).send().await;
            reply.is_invalid(&[("", "required")]);
            assert_eq!(reply.detail(), "The request breaks the contract: the body is missing.");
        }
        with(ann.call(Method::PATCH, ann.task(id(&task)) + "/complete")).send().await.is(200);
    }
    assert_eq!(ann.get(id(&task)).await.json()["version"], 5);
}

#[tokio::test]
async fn a_compressed_body_is_refused_by_name() {
    let (_app, ann) = user().await;
    let post = |coding: &str| {
        let call = ann.call(Method::POST, ann.tasks()).header("Content-Type", "application/json");
        call.header("Content-Encoding", coding).body(r#"{"title":"t"}"#).send()
    };

    for coding in ["gzip", "br", "x, y", "GZIP"] {
        let detail = post(coding).await.is_problem(415, "unsupported-media-type").detail();
        let name = coding.replace(' ', "");
        assert!(detail.starts_with(&format!("The body is compressed (`Content-Encoding: {name}`)")), "{detail}");
    }
    post("identity").await.is(201);
}

#[tokio::test]
async fn what_is_wrong_is_told_at_once_wherever_it_stands() {
    let (_app, ann) = user().await;

    let list =
        ann.call(Method::GET, ann.tasks() + "?status=done&limit=0&cursor=x&limi=1").header("If-None-Match", "\"x");
    let reply = list.send().await;
    reply.is_invalid(&[("status", "enum"), ("limit", "minimum"), ("cursor", "format"), ("If-None-Match", "pattern")]);
    assert_eq!(reply.json()["errors"][1]["limit"], 1);
    assert!(reply.detail().contains("the query parameter `limit` must be a whole number from 1 to 1000; "));

    // Also that the task is none is told only to a request that the contract allows.
    let put = ann.call(Method::PUT, ann.task("1")).header("If-Match", "\"x").json(json!({"title": "", "x": 1}));
    put.send().await.is_invalid(&[("If-Match", "pattern"), ("/title", "minLength"), ("/x", "additionalProperties")]);
    let key = ann.call(Method::POST, ann.tasks()).header("Idempotency-Key", "a b").json(json!({}));
    key.send().await.is_invalid(&[("Idempotency-Key", "pattern"), ("/title", "required")]);
    has_no_task(&ann).await;
}

#[tokio::test]
async fn a_name_that_occurs_twice_is_refused() {
    let (_app, ann) = user().await;
    let task = ann.create("t").await;

    for body in [
        r#"{"title":"a","title":"b"}"#,
        r#"{"title":"a","\u0074itle":"b"}"#,
        r#"{"title":1,"title":"b"}"#,
        r#"{"title":"a","completed":true,"completed":true}"#,
        r#"{"title":"a","description":null,"description":"d"}"#,
    ] {
        let reply = raw(&ann, body).await;
        assert!(
            reply
                .is_problem(400, "malformed-body")
                .detail()
                .contains("a name occurs twice in one object, at line 1 column "),
            "{}",
            reply.detail()
        );
        let put = ann.call(Method::PUT, ann.task(id(&task))).header("Content-Type", "application/json").body(body);
        put.send().await.is_problem(400, "malformed-body");
    }
    let patch = ann.call(Method::PATCH, ann.task(id(&task)) + "/complete").header("Content-Type", "application/json");
    patch.body(r#"{"completed":true,"completed":false}"#).send().await.is_problem(400, "malformed-body");
    assert_eq!(ann.list("").await.json(), json!([task]));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let (app, ann) = user().await;

    for length in [65 * 1024, 3 * 1024 * 1024] {
        let body = format!(r#"{{"title":"{}"}}"#, "x".repeat(length));
        let reply = raw(&ann, body.clone()).await;
        assert_eq!(reply.is_problem(413, "body-too-large").detail(), "The body is larger than 65536 bytes.");
        // Also where its length is not told beforehand.
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            ann.tasks(),
            ann.token
        );
        let answer = super::edge::exchange(app.address, format!("{head}{chunked}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    has_no_task(&ann).await;
}

#[tokio::test]
async fn a_body_must_be_declared_as_json() {
    let (_app, ann) = user().await;
    let body = r#"{"title":"t"}"#;

    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "json",
        "",
        "application/jsonx",
    ] {
        let call = ann.call(Method::POST, ann.tasks()).header("Content-Type", media_type).body(body);
        call.send().await.is_problem(415, "unsupported-media-type");
    }
    ann.call(Method::POST, ann.tasks()).body(body).send().await.is_problem(415, "unsupported-media-type");
    has_no_task(&ann).await;
    for media_type in
        ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json ;x=y"]
    {
        ann.call(Method::POST, ann.tasks()).header("Content-Type", media_type).body(body).send().await.is(201);
    }
}

#[tokio::test]
async fn an_update_names_at_least_one_field_and_no_unknown_one() {
    let (_app, ann) = user().await;
    let task = ann.create("t").await;
    let put = async |body: Value| ann.put(id(&task), body).await;

    put(json!({})).await.is_invalid(&[("", "minProperties")]);
    put(json!({"title": null})).await.is_invalid(&[("/title", "type")]);
    put(json!({"completed": null})).await.is_invalid(&[("/completed", "type")]);
    put(json!({"title": "x".repeat(201), "completed": 1}))
        .await
        .is_invalid(&[("/title", "maxLength"), ("/completed", "type")]);
    for field in ["id", "user_id", "version", "created_at", "updated_at", "completed_at"] {
        let mut body = json!({"title": "u"});
        body[field] = task[field].clone();
        put(body).await.is_invalid(&[(&format!("/{field}"), "additionalProperties")]);
    }
    assert_eq!(ann.get(id(&task)).await.json(), task);
}

#[tokio::test]
async fn a_completion_is_true_or_false() {
    let (_app, ann) = user().await;
    let task = ann.create("t").await;

    for completed in [json!(null), json!("true"), json!(1)] {
        ann.complete(id(&task), json!({"completed": completed})).await.is_invalid(&[("/completed", "type")]);
    }
    ann.complete(id(&task), json!({"done": true})).await.is_invalid(&[("/done", "additionalProperties")]);
    for body in [json!(null), json!([]), json!(true)] {
        ann.complete(id(&task), body).await.is_invalid(&[("", "type")]);
    }
    let undeclared = ann.call(Method::PATCH, ann.task(id(&task)) + "/complete").body(r#"{"completed":true}"#);
    undeclared.send().await.is_problem(415, "unsupported-media-type");
    assert_eq!(ann.get(id(&task)).await.json(), task);
}

#[tokio::test]
async fn an_empty_body_may_come_in_chunks_and_undeclared() {
    let (app, ann) = user().await;
    let task = ann.create("t").await;
    for (body, status) in [("0\r\n\r\n", "200 OK"), ("2\r\n{}\r\n0\r\n\r\n", "415 Unsupported Media Type")] {
        let request = format!(
            "PATCH {}/complete HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n{body}",
            ann.task(id(&task)),
            ann.token
        );
        let answer = super::edge::exchange(app.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn an_id_that_is_no_uuid_is_no_tasks() {
    let (_app, ann) = user().await;

    for bad in [
        "1",
        "not-a-uuid",
        "019a7e3c91d47b528f4e2a6c0d1b3e57",
        "%7B019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57%7D",
        "%00",
        "%FF",
        "..%2F",
        "019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e5g",
    ] {
        for call in [
            ann.call(Method::GET, ann.task(bad)),
            ann.call(Method::PUT, ann.task(bad)).json(json!({"title": "u"})),
            ann.call(Method::DELETE, ann.task(bad)),
            ann.call(Method::PATCH, ann.task(bad) + "/complete"),
        ] {
            call.send().await.is_problem(404, "no-such-task");
        }
    }
    let task = ann.create("t").await;
    ann.get(&id(&task).to_uppercase()).await.is(200);
}
