"use strict";
SwaggerUIBundle({ url: "/v1/openapi/document.json", dom_id: "#swagger", deepLinking: true, validatorUrl: null });
