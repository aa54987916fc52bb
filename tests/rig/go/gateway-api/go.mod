module penstock.dev/rig/gateway-api

go 1.26

// No program: the definitions of Gateway API, in config/crd.
require sigs.k8s.io/gateway-api v1.6.3
