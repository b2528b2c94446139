# What it does is said in launch.rs.
.pushsection .rodata.drayage_launch, "a"
   .balign 8
drayage_launch_begin:
   mov r15d, {data}
   mov r14, [r15 + 8]
2: mov rax, [r14]
   cmp rax, -1
   je 5f
   mov rdi, [r14 + 8]
   mov rsi, [r14 + 16]
   mov rdx, [r14 + 24]
   mov r10, [r14 + 32]
   mov r8, [r14 + 40]
   mov r9, [r14 + 48]
   syscall
   test rax, rax
   js 4f
   mov rcx, [r14 + 56]
   test rcx, rcx
   jz 3f
   mov dword ptr [rcx], eax
3: add r14, 88
   jmp 2b
4: test byte ptr [r14 + 64], 1
   jnz 3b
   neg eax
   mov rsi, [r14 + 72]
   mov dword ptr [rsi + 4], eax
   mov rdx, [r14 + 80]
   mov edi, dword ptr [r15]
   mov eax, 1
   syscall
drayage_launch_end_it:
5: mov edi, 127
   mov eax, 231
   syscall
   ud2
drayage_launch_end:
.popsection
