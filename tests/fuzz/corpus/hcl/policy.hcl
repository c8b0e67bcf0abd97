path "secret/*" { capabilities = ["read", "list"]
 allowed_parameters = { "a" = [], b = ["x", 1] } }
path "a/+/b" { policy = "write" }
