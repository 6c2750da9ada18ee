package org.kbnn.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Files that kbnn's converter wrote (`make_vectors.py`). */
class FileDescriptionTest {
    @Test
    fun `grey pictures`() {
        val found = FileDescription.read(file("grey.tflite"))
        assertEquals((0..9).map(Int::toString), found.labels)
        assertEquals(listOf(8, 8, 1), listOf(found.height, found.width, found.channels))
        assertEquals(listOf(1, 1), listOf(found.mean.size, found.std.size))
    }

    @Test
    fun `coloured pictures that are not square`() {
        val expected = FileDescription(listOf("cat", "dögs"), 8, 10, 3, listOf(125f, 120.5f, 110f), listOf(60f, 61f, 62f))
        assertEquals(expected, FileDescription.read(file("colour.tflite")))
    }

    @Test
    fun `a file without labels, a damaged one and an empty one are refused`() {
        val whole = file("grey.tflite")
        for (bytes in listOf(whole.copyOf(whole.size - 1), whole.copyOf(100), ByteArray(0), ByteArray(64) { -1 })) {
            val error = assertThrows(IllegalArgumentException::class.java) { FileDescription.read(bytes) }
            assertTrue("export again" in error.message!!) { error.message }
        }
    }

    private fun file(name: String): ByteArray = javaClass.getResourceAsStream("/files/$name")!!.use { it.readBytes() }
}
