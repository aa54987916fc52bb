import pytest

from serving.http.routes import Kind, Route, Routes


@pytest.mark.parametrize(
    ("method", "target", "route"),
    [
        (b"POST", b"/v2/models/digits/infer", Route(Kind.V2_INFER, "digits")),
        (b"POST", b"/v2/models/digits/infer?trace=1", Route(Kind.V2_INFER, "digits")),
        (b"POST", b"/v2/models/a%20b%2Fc/infer", Route(Kind.V2_INFER, "a b/c")),
        (b"POST", b"/v2/models/digits/versions/3/infer", Route(Kind.V2_INFER, "digits", "3")),
        (b"POST", b"/v1/models/digits:predict", Route(Kind.V1_PREDICT, "digits")),
        (b"GET", b"/v2/models/digits/ready", Route(Kind.MODEL_READY, "digits")),
        (b"GET", b"/v2/models/digits/versions/3/ready", Route(Kind.MODEL_READY, "digits", "3")),
        (b"GET", b"/v2/health/live", Route(Kind.LIVE)),
        (b"GET", b"/v2/health/ready", Route(Kind.READY)),
        (b"GET", b"/metrics", Route(Kind.METRICS)),
        (b"GET", b"/debug/requests?x", Route(Kind.REQUESTS)),
        (b"GET", b"/debug/shadow", Route(Kind.SHADOW)),
        (b"POST", b"/inference.GRPCInferenceService/ModelInfer", Route(Kind.GRPC, method="ModelInfer")),
        (b"GET", b"/v2/models/digits/infer", None),
        (b"HEAD", b"/v2/health/live", Route(Kind.LIVE, bodiless=True)),
        (b"POST", b"HTTP://host:80/v2/models/digits/infer", Route(Kind.V2_INFER, "digits")),
        (b"POST", b"/v2/models//infer", None),
        (b"POST", b"/v2/health/live", None),
        (b"GET", b"/v2", Route(Kind.SERVER)),
        (b"GET", b"/v2/", Route(Kind.SERVER)),
        (b"POST", b"/v2", None),
        (b"GET", b"/v2/models", Route(Kind.MODELS)),
        (b"GET", b"/v2/models/", Route(Kind.MODELS)),
        (b"GET", b"/v2/models/stats", Route(Kind.STATISTICS)),
        (b"GET", b"/v2/models/digits", Route(Kind.MODEL, "digits")),
        (b"GET", b"/v2/models/digits/", Route(Kind.MODEL, "digits")),
        (b"POST", b"/v2/models/digits", None),
        (b"GET", b"/v2/models/digits/versions", None),
        (b"GET", b"/v2/models/digits/versions/3", Route(Kind.MODEL, "digits", "3")),
        (b"GET", b"/v2/models/digits/config", Route(Kind.MODEL_CONFIG, "digits")),
        (b"GET", b"/v2/models/digits/versions/3/config", Route(Kind.MODEL_CONFIG, "digits", "3")),
        (b"GET", b"/v2/models/digits/stats", Route(Kind.MODEL_STATISTICS, "digits")),
        (b"GET", b"/v2/models/digits/versions/3/stats", Route(Kind.MODEL_STATISTICS, "digits", "3")),
        (b"GET", b"/", None),
        (b"OPTIONS", b"*", None),
        (b"POST", b"/v2/models/" + b"x" * 5000 + b"/infer", Route(Kind.V2_INFER, "x" * 5000)),
    ],
)
def test_a_route_is_read_from_method_and_target(method: bytes, target: bytes, route: Route | None) -> None:
    routes = Routes()

    assert (routes.find(method, target), routes.find(method, target)) == (route, route)


def test_any_number_of_targets_can_be_asked_for() -> None:
    routes = Routes()

    found = [routes.find(b"POST", b"/v2/models/m%d/infer" % number) for number in range(3000)]

    assert found == [Route(Kind.V2_INFER, f"m{number}") for number in range(3000)]
    assert len(routes._known) <= 1024
