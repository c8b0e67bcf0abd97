storage "wiredtiger" {
  path = "/d" # c
}
listener "tcp" { address = "a:1", tls_disable = 1 }
/* x */ ui = true
