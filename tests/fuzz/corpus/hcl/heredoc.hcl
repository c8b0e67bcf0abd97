a = <<EOF
line "x"
  two
EOF
b = <<-E
    in
      deeper
    E
c = 0x1f
d = -3
e = "\x41\u00e9${x "y"}"
f = 1.5e-3
