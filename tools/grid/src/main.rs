fn main() { println!("grid"); }
