// The OWASP ruleset. Each rule that is off is wrong for this API, for the reason beside it.

import owasp from "@stoplight/spectral-owasp-ruleset";

/** The schema of every problem. This is not YAML, because there a pointer can't have a wildcard. */
const PROBLEMS = [
  "BodyTooLarge", "ChangesExpired", "Forbidden", "HeadersTooLarge", "IdempotencyKeyInUse", "IdempotencyKeyReused", "Internal", "InvalidRequest",
  "MalformedBody", "MalformedRequest", "MethodNotAllowed", "NoSuchPath", "NoSuchTask", "RequestTimeout", "TooManyRequests",
  "Unauthorized", "Unavailable", "UnsupportedMediaType", "UriTooLong", "VersionMismatch",
];
const ofEveryProblem = (property) => PROBLEMS.map((name) => `**#/components/schemas/${name}Problem/properties/${property}`);

export default {
  extends: [owasp],
  rules: {
    // The header depends on the deployment's settings and on the Origin of the request, it is for the browser, and scripts
    // can't read it. tests/browser proves it.
    "owasp:api8:2023-define-cors-origin": "off",
    // The one server is `/`: the one that gave out the document. Which environment that is, the document can't know.
    "owasp:api9:2023-inventory-access": "off",
    "owasp:api9:2023-inventory-environment": "off",
    // As it is published, this rule breaks off ("match is not a function") at a schema that has properties called `in` and
    // `name`, as Violation does: it takes them for a parameter. And where it runs, it looks for the name of a name, and finds
    // nothing. This is what it means.
    "owasp:api2:2023-no-credentials-in-url": {
      ...owasp.rules["owasp:api2:2023-no-credentials-in-url"],
      given: '$..parameters[?(@ && (@.in === "query" || @.in === "path"))]',
    },
  },
  overrides: [
    {
      // The probes are open by design, for load balancers, and take nothing that could be refused. Nobody counts them.
      files: ["**#/paths/~1health/get", "**#/paths/~1health~1ready/get"],
      rules: {
        "owasp:api2:2023-read-restricted": "off",
        "owasp:api4:2023-rate-limit": "off",
        "owasp:api4:2023-rate-limit-responses-429": "off",
        "owasp:api8:2023-define-error-responses-401": "off",
        "owasp:api8:2023-define-error-validation": "off",
      },
    },
    {
      // Answers, and in words, which may change.
      files: [...ofEveryProblem("title"), ...ofEveryProblem("detail"), "**#/components/schemas/Violation/properties"],
      rules: { "owasp:api4:2023-string-restricted": "off" },
    },
    {
      // A user's id is whatever text the issuer makes of it.
      files: ["**#/components/parameters/user_id", "**#/components/schemas/Task/properties/user_id"],
      rules: { "owasp:api4:2023-string-restricted": "off" },
    },
  ],
};
